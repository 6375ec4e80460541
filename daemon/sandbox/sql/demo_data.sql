-- Demo data, the same every time: ids are derived from names, except those of workspaces, whose type depends on the world.
-- Nothing is inserted if there are any repositories.
with numbers as (
    select n from generate_series(1, 48) n where not exists (select from public.repositories)
),
names(owner, name) as (
    select
        (array['acme', 'globex', 'initech', 'umbrella'])[1 + n % 4],
        (array['api', 'web', 'docs', 'infra', 'mobile', 'billing', 'search', 'auth', 'cli', 'sdk', 'jobs', 'ui'])
            [1 + (n - 1) / 4]
    from numbers
),
new_repositories as (
    insert into public.repositories (id, owner, name)
    select md5('repository ' || owner || '/' || name)::uuid, owner, name from names
    returning id, owner, name
),
new_workspaces as (
    insert into public.workspaces (name, slug)
    select initcap(slug), slug
    from unnest(array['platform', 'frontend', 'data', 'security', 'growth', 'research']) slug
    where exists (select from new_repositories)
    returning id, slug
),
new_tracked as (
    insert into public.tracked_repositories (id, repository_id, organization_name, repository_name, size)
    select
        md5('tracked ' || owner || '/' || name)::uuid, id, owner, name,
        (array['small', 'medium', 'large', 'xl']::public.repository_size[])[1 + length(name) % 4]
    from new_repositories
    returning id
)
insert into public.workspace_repositories (id, workspace_id, repository_id)
select md5(w.id::text || r.id::text)::uuid, w.id, r.id
from new_workspaces w
join new_repositories r on (length(r.name) * 7 + length(r.owner) * 3 + length(w.slug)) % 5 = 0;
