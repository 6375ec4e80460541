-- Both tables in four hash partitions, as in large applications. A unique constraint must contain the partition key, so
-- nothing keeps a repository from having two tracked rows. Realtime reports changes under the partition's name, so
-- subscribers to the table receive none.
alter table public.workspace_repositories rename to old_workspace_repositories;
alter table public.tracked_repositories rename to old_tracked_repositories;
create table public.workspace_repositories (
    like public.old_workspace_repositories including defaults,
    primary key (workspace_id, repository_id),
    foreign key (workspace_id) references public.workspaces (id) on delete cascade,
    foreign key (repository_id) references public.repositories (id) on delete cascade
) partition by hash (workspace_id);
create table public.tracked_repositories (
    like public.old_tracked_repositories including defaults,
    primary key (id),
    foreign key (repository_id) references public.repositories (id) on delete cascade
) partition by hash (id);
drop table public.old_workspace_repositories, public.old_tracked_repositories;

do $$
declare
    v_table text;
begin
    foreach v_table in array array['workspace_repositories', 'tracked_repositories'] loop
        for v_part in 0..3 loop
            execute format(
                'create table public.%I partition of public.%I for values with (modulus 4, remainder %s)',
                v_table || '_' || v_part, v_table, v_part
            );
            execute format('alter table public.%I enable row level security', v_table || '_' || v_part);
        end loop;
        execute format('alter table public.%I enable row level security', v_table);
    end loop;
end
$$;
create index idx_workspace_repositories_repository on public.workspace_repositories (repository_id);
create index idx_tracked_repositories_repository on public.tracked_repositories (repository_id);
create trigger set_tracked_repositories_updated_at before update on public.tracked_repositories
for each row execute function public.set_updated_at();
