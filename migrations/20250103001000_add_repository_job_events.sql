-- Jobs of repositories: their types, what one must look like, its priority, and the event that asks Inngest for it.

do $tables$
begin
    if not priorityd.start_unit('20250103001000 tables', 1, '{20250103000600 tables}') then
        return;
    end if;

    -- The types of jobs and the event that asks for each. What ordered jobs remember of a type: when it had its turn,
    -- whether the last release was a promotion, the jobs in flight, and from where on it is worth looking: no lane has an
    -- older head than the marks say, no workspace had its turn before turn_mark, but new ones if there are any.
    if to_regclass('priorityd.job_types') is null then
        create table priorityd.job_types (
            job_type text primary key,
            event_name text not null,
            served bigint not null default 0,
            promoted_last boolean not null default false,
            in_flight uuid[] not null default '{}',
            medium_mark timestamptz not null default '-infinity',
            low_mark timestamptz not null default '-infinity',
            turn_mark bigint not null default 0,
            new_turns boolean not null default false
        );
    end if;
    insert into priorityd.job_types as t (job_type, event_name)
    values
        ('historical-pr-sync', 'capture/repository.sync.graphql'),
        ('recent-prs', 'capture/repository.sync.graphql'),
        ('pr-details', 'capture/pr.details.graphql'),
        ('reviews', 'capture/pr.reviews'),
        ('comments', 'capture/pr.comments'),
        ('repository-issues', 'capture/repository.issues'),
        ('repository-discussions', 'capture/repository.discussions')
    on conflict (job_type) do update set event_name = excluded.event_name where t.event_name <> excluded.event_name;
end
$tables$;

do $functions$
begin
    if not priorityd.start_unit(
        '20250103001000 functions', 1, '{20250103000900 functions, 20250103001000 tables}', '{build_repository_job_events}'
    ) then
        return;
    end if;

    -- The priority of the jobs of a repository with such a tracked row: high in a workspace whatever the row says, and
    -- medium without a row or a known value in it. Jobs have three priorities: critical counts as high.
    create or replace function priorityd.job_priority(p_priority text, p_is_workspace_repo boolean)
    returns text language plpgsql immutable parallel safe as $$
    begin
        return case
            when p_is_workspace_repo or p_priority = 'critical' then 'high'
            when p_priority in ('high', 'medium', 'low') then p_priority
            else 'medium'
        end;
    end
    $$;

    -- What a job was queued with, from a column of type json or jsonb. json accepts what jsonb can't hold (zero bytes, huge
    -- numbers): such a payload counts as none, so that reading many jobs does not fail because of one.
    create or replace function priorityd.parsed_payload(p_payload anyelement)
    returns jsonb language plpgsql immutable as $$
    declare
        v_payload jsonb;
    begin
        if pg_typeof(p_payload) = 'jsonb'::regtype then
            return p_payload;
        end if;
        begin
            v_payload := p_payload;
            return v_payload;
        exception
            when data_exception or program_limit_exceeded or statement_too_complex then
                return null;
        end;
    end
    $$;

    -- What a payload says about its priority, cut to the length that may be meaningful.
    create or replace function priorityd.priority_word(p_payload jsonb)
    returns text language sql immutable parallel safe as $$
        select left(p_payload #>> '{priority}', 33)
    $$;

    -- The priority that such a word or score requests: a score between two priorities counts as the lower one. Null if it
    -- is neither.
    create or replace function priorityd.queued_priority(p_word text)
    returns text language plpgsql immutable parallel safe as $$
    begin
        return case
            when p_word in ('high', 'medium', 'low') then p_word
            when p_word = 'critical' then 'high'
            when length(p_word) <= 32 and p_word ~ '^[0-9]{1,9}([.][0-9]+)?$' then
                case when p_word::numeric >= 100 then 'high' when p_word::numeric >= 50 then 'medium' else 'low' end
        end;
    end
    $$;

    -- The priority of the jobs of each of these repositories, looked up once each. Of several rows the most relevant one
    -- counts.
    create or replace function priorityd.job_priorities(p_repository_ids uuid[])
    returns table (repository_id uuid, priority text)
    language sql stable as $$
        select distinct on (tr.repository_id) tr.repository_id,
            priorityd.job_priority(tr.priority::text, tr.is_workspace_repo)
        from public.tracked_repositories tr
        where tr.repository_id = any (p_repository_ids)
        order by tr.repository_id, coalesce(tr.is_workspace_repo, false) desc, priorityd.rank(tr.priority::text), tr.id
    $$;

    create or replace function priorityd.score(p_priority text)
    returns integer language plpgsql immutable parallel safe as $$
    begin
        return case p_priority when 'high' then 100 when 'medium' then 50 else 25 end;
    end
    $$;

    -- Raises for an unknown job type, listing the known ones.
    create or replace function priorityd.check_job_type(p_job_type text)
    returns void language plpgsql stable as $$
    begin
        if p_job_type is null
            or not exists (select from priorityd.job_types k where k.job_type = p_job_type) then
            raise exception 'there is no job type %; there are %',
                coalesce(quote_literal(left(p_job_type, 80)), 'null'),
                (select string_agg(k.job_type, ', ' order by k.job_type) from priorityd.job_types k)
                using errcode = 'invalid_parameter_value';
        end if;
    end
    $$;

    -- Raises if this is no list of jobs, or longer than one call may be.
    create or replace function priorityd.check_job_list(p_jobs jsonb)
    returns void language plpgsql immutable as $$
    declare
        c_most constant integer := 5000;
    begin
        if jsonb_typeof(p_jobs) is distinct from 'array' or jsonb_array_length(p_jobs) > c_most then
            raise exception 'p_jobs must be an array of at most % jobs', c_most using errcode = 'invalid_parameter_value';
        end if;
    end
    $$;

    -- Why this can't be an event's data, or null: the same as core/jobs/validation.py, as far as jsonb can hold what that
    -- refuses.
    create or replace function priorityd.explain_refused_data(p_data jsonb)
    returns text language plpgsql immutable as $$
    declare
        -- JSON numbers are doubles in Inngest and in JavaScript.
        c_too_large constant jsonpath := 'strict $.** ? (@.type() == "number"
            && (@ > 1.7976931348623157e308 || @ < -1.7976931348623157e308))';
        c_large constant integer := 1000000;
        c_most_bytes constant integer := 3145728;
    begin
        if jsonb_typeof(p_data) <> 'object' then
            return 'has data that are no object';
        end if;
        if jsonb_typeof(coalesce(p_data -> 'metadata', '{}')) <> 'object' then
            return 'has data.metadata that are no object';
        end if;
        if jsonb_path_exists(p_data, '$.**{101 to last}') then
            return 'has data that are nested deeper than 100 levels';
        end if;
        if jsonb_path_exists(p_data, c_too_large) then
            return 'has data with a number that is too large';
        end if;
        if pg_column_size(p_data) > c_large and octet_length(p_data::text) > c_most_bytes then
            return format('has data of more than %s bytes', c_most_bytes);
        end if;
        return null;
    end
    $$;

    -- Why this can't be queued, or null. The fields that are set when the event is built may not be given.
    create or replace function priorityd.explain_refused_job(p_job jsonb)
    returns text language plpgsql immutable as $$
    declare
        c_uuid constant text := '^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$';
        v_data constant jsonb := coalesce(nullif(p_job -> 'data', 'null'), '{}');
        v_reason text;
        v_own text;
    begin
        if jsonb_typeof(p_job) is distinct from 'object' then
            return 'is no object';
        end if;
        if (p_job ->> 'repository_id' ~ c_uuid) is not true then
            return 'has no repository_id that is a uuid';
        end if;
        if coalesce(p_job ->> 'job_id' ~ c_uuid, true) is not true then
            return 'has a job_id that is no uuid';
        end if;
        if coalesce(jsonb_typeof(p_job -> 'repository_name'), 'null') not in ('string', 'null') then
            return 'has a repository_name that is no text';
        end if;
        v_reason := priorityd.explain_refused_data(v_data);
        if v_reason is not null then
            return v_reason;
        end if;
        select string_agg(k.key, ', ' order by k.key) into v_own
        from (
            select 'data.' || d.key as key from jsonb_object_keys(v_data) d (key)
            where d.key in ('jobId', 'repositoryId', 'repositoryName', 'priority', 'priorityScore')
            union all
            select 'data.metadata.' || m.key from jsonb_object_keys(coalesce(v_data -> 'metadata', '{}')) m (key)
            where m.key in (
                'isWorkspaceRepo', 'workspaceCount', 'originalPriority', 'priority', 'priorityScore', 'priorityLookup',
                'promoted'
            )
        ) k;
        return 'may not hold ' || v_own || ': that is set here';
    end
    $$;

    -- The same for a list, with the type of each, its own or the common one. `reason` is null if a job can be queued.
    create or replace function priorityd.judge_jobs(p_jobs jsonb, p_job_type text)
    returns table (pos bigint, job jsonb, job_type text, reason text) language plpgsql stable as $$
    begin
        perform priorityd.check_job_list(p_jobs);
        if p_job_type is not null then
            perform priorityd.check_job_type(p_job_type);
        end if;
        return query
            select e.pos, e.job, k.job_type, coalesce(
                    priorityd.explain_refused_job(e.job), case when k.job_type is null then 'has no known job_type' end
                )
            from jsonb_array_elements(p_jobs) with ordinality e (job, pos)
            left join priorityd.job_types k on k.job_type = coalesce(e.job ->> 'job_type', p_job_type);
    end
    $$;

    -- The part of a job's event that does not depend on priorities.
    create or replace function priorityd.job_data(p_job jsonb)
    returns jsonb language plpgsql immutable as $$
    begin
        return jsonb_strip_nulls(
            jsonb_build_object(
                'repositoryId', (p_job ->> 'repository_id')::uuid,
                'repositoryName', p_job ->> 'repository_name'
            )
        ) || coalesce(nullif(p_job -> 'data', 'null'), '{}');
    end
    $$;

    -- What a job's event says about the priority of its repository; nulls where there is no tracked row.
    create or replace function priorityd.job_metadata(p_tracked jsonb, p_priority text)
    returns jsonb language plpgsql immutable as $$
    begin
        return jsonb_build_object(
            'isWorkspaceRepo', case when p_tracked is not null then coalesce(p_tracked -> 'is_workspace_repo' = 'true', false) end,
            'workspaceCount', case when p_tracked is not null then coalesce((p_tracked ->> 'workspace_count')::integer, 0) end,
            'originalPriority', p_tracked -> 'priority',
            'priority', p_priority,
            'priorityScore', priorityd.score(p_priority),
            'priorityLookup', case when p_tracked is null then 'untracked' else 'found' end
        );
    end
    $$;

    -- The events of jobs, ready to be sent to Inngest by any language, each with the priority that its repository has
    -- now. Jobs look as in queue_repository_jobs: {"repository_id": "...", "repository_name": "acme/web", "data": {...},
    -- "job_id": "...", "job_type": "..."}, of which only the first is needed; job_id becomes the event's id, by which Inngest
    -- recognises a repeat for 24 hours. A malformed job is listed in `refused` with its position and the reason, but
    -- for its data.
    create or replace function public.build_repository_job_events(p_job_type text, p_jobs jsonb)
    returns jsonb language plpgsql
    set search_path = public, extensions
    set statement_timeout = '10s'
    set default_transaction_isolation = 'read committed'
    as $$
    declare
        v_answer jsonb;
    begin
        with judged as (
            select j.pos as position, j.job, k.event_name, j.reason
            from priorityd.judge_jobs(p_jobs, p_job_type) j
            left join priorityd.job_types k on k.job_type = j.job_type
        ),
        prioritised as (
            select j.*, r.tracked, priorityd.job_priority(
                    r.tracked ->> 'priority', (r.tracked ->> 'is_workspace_repo')::boolean
                ) as priority
            from judged j
            left join lateral (
                select jsonb_build_object(
                    'priority', tr.priority, 'is_workspace_repo', tr.is_workspace_repo, 'workspace_count', tr.workspace_count
                ) as tracked
                from public.tracked_repositories tr
                where tr.repository_id = (j.job ->> 'repository_id')::uuid
                order by tr.id
                limit 1
            ) r on true
            where j.reason is null
        )
        select jsonb_build_object(
            'events', (
                select coalesce(
                    jsonb_agg(
                        jsonb_build_object(
                            'name', p.event_name,
                            'id', coalesce((p.job ->> 'job_id')::uuid, gen_random_uuid()),
                            'data', priorityd.job_data(p.job) || jsonb_build_object(
                                'priority', priorityd.score(p.priority),
                                'metadata', priorityd.job_metadata(p.tracked, p.priority)
                                    || coalesce(p.job #> '{data,metadata}', '{}')
                            )
                        )
                        order by p.position
                    ),
                    '[]'
                )
                from prioritised p
            ),
            'refused', (
                select coalesce(
                    jsonb_agg(
                        jsonb_build_object(
                            'position', j.position,
                            'job', case when jsonb_typeof(j.job) = 'object' then j.job - 'data' else j.job end,
                            'reason', j.reason
                        )
                        order by j.position
                    ),
                    '[]'
                )
                from judged j
                where j.reason is not null
            )
        )
        into v_answer;
        return v_answer;
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
