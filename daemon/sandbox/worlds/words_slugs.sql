-- Workspaces have text ids in a format of the application's own.
alter table public.workspace_repositories drop constraint workspace_repositories_workspace_id_fkey;
alter table public.workspaces alter id drop default, alter id type text using id::text;
alter table public.workspaces alter id set default 'ws_' || translate(gen_random_uuid()::text, '-', '');
alter table public.workspace_repositories
    alter workspace_id type text using workspace_id::text,
    add foreign key (workspace_id) references public.workspaces (id) on delete cascade;
