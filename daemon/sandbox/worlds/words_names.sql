-- Names that must be quoted, in several alphabets: a type in its own schema, a column, an index, a trigger, and the
-- repositories themselves.
create schema "Prioritäten & Co.";
grant usage on schema "Prioritäten & Co." to anon, authenticated, service_role;
create type "Prioritäten & Co."."Stufe ""A"" 'b'" as enum ('high', 'medium', 'low');
alter table public.tracked_repositories
    alter priority drop default,
    alter priority type "Prioritäten & Co."."Stufe ""A"" 'b'" using priority::text::"Prioritäten & Co."."Stufe ""A"" 'b'",
    alter priority set default 'medium',
    add "größe; drop table x; --" integer default 1;
drop type public.repository_priority;
alter table public.repositories
    alter owner set default 'O''Brien "&" <Söhne>',
    alter name set default '日本/' || gen_random_uuid()::text || '%s\';
alter trigger set_tracked_repositories_updated_at on public.tracked_repositories rename to "wächter ""1""";
create index "größe nach ""wichtigkeit""" on public.tracked_repositories ("größe; drop table x; --");
