-- Deletes a random workspace, and its memberships by cascade.
with gone as (
    delete from public.workspaces w
    where w.id = (select id from public.workspaces order by random() limit 1)
    returning w.name, w.slug
)
select name, slug from gone;
