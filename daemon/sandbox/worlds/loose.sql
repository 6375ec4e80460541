-- An application that leaves all checks to its code: only ids are unique, foreign keys may be null, a membership may occur
-- twice, a repository may have two tracked rows, a new row has no priority, and times have no zone.
alter table public.repositories drop constraint repositories_owner_name_key;
alter table public.workspaces drop constraint workspaces_slug_key, alter is_active drop default;
alter table public.workspace_repositories
    drop constraint workspace_repositories_workspace_id_repository_id_key,
    alter workspace_id drop not null,
    alter repository_id drop not null,
    alter added_at type timestamp;
alter table public.tracked_repositories
    drop constraint tracked_repositories_repository_id_key,
    alter priority drop default,
    alter tracking_enabled drop default;
alter table public.background_jobs
    drop constraint background_jobs_repository_id_fkey,
    drop constraint background_jobs_status_check,
    alter created_at drop not null;
