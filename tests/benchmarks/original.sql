-- The requests of the TypeScript service that priorityd replaces, one function for each, so that they go through the
-- same REST surface as priorityd's. Its lists of ids stand in the body here: in the URL, where it had them, they fail
-- from some hundreds on.

create function public.original_workspace_repositories() returns jsonb
language sql stable set search_path = ''
return (select coalesce(jsonb_agg(distinct wr.repository_id), '[]') from public.workspace_repositories wr);

create function public.original_mark_high(p_ids uuid[]) returns jsonb
language sql set search_path = ''
as $$
    with marked as (
        update public.tracked_repositories set is_workspace_repo = true, priority = 'high'
        where repository_id = any (p_ids)
        returning repository_id, priority
    )
    select coalesce(jsonb_agg(to_jsonb(m)), '[]') from marked m
$$;

create function public.original_count(p_id uuid) returns jsonb
language sql stable set search_path = ''
return (select to_jsonb(count(*)) from public.workspace_repositories wr where wr.repository_id = p_id);

create function public.original_set_count(p_id uuid, p_count integer) returns jsonb
language sql set search_path = ''
as $$
    update public.tracked_repositories set workspace_count = p_count where repository_id = p_id;
    select 'null'::jsonb
$$;

create function public.original_tracked_only(p_ids uuid[]) returns jsonb
language sql stable set search_path = ''
return (
    select coalesce(jsonb_agg(tr.repository_id), '[]') from public.tracked_repositories tr
    where tr.repository_id <> all (p_ids)
);

create function public.original_downgrade(p_ids uuid[]) returns jsonb
language sql set search_path = ''
as $$
    with downgraded as (
        update public.tracked_repositories
        set is_workspace_repo = false, priority = 'medium', workspace_count = 0
        where repository_id = any (p_ids) and priority <> 'medium'
        returning repository_id
    )
    select coalesce(jsonb_agg(d.repository_id), '[]') from downgraded d
$$;

-- What its hooks did for one repository that joined or left a workspace.
create function public.original_mark(p_id uuid, p_count integer) returns jsonb
language sql set search_path = ''
as $$
    update public.tracked_repositories
    set is_workspace_repo = p_count > 0, workspace_count = p_count,
        priority = case when p_count > 0 then 'high' else 'medium' end::public.repository_priority
    where repository_id = p_id;
    select 'null'::jsonb
$$;

notify pgrst, 'reload schema';
