-- Jobs of repositories: their types, their required form, their priorities, and the events that start them on Inngest.

do $tables$
begin
    if not priorityd.start_unit('20250103001000 tables', 1, '{20250103000600 tables}') then
        return;
    end if;

    -- The types of jobs, and the event that starts each. For ordered jobs also: when the type last had its turn, whether
    -- its last release was a promotion, its jobs in flight, and marks from which to start looking: no lane has a head older
    -- than its mark, and no waiting workspace had its last turn before turn_mark, except for new ones if there are any.
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

    -- The priority of the jobs of a repository with this tracked row: high in a workspace whatever the row says, and
    -- medium without a row or without a known value in it. Jobs have three priorities: critical counts as high.
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

    -- The payload of a job, from a column of type json or jsonb. json accepts what jsonb can't hold (zero bytes, huge
    -- numbers): such a payload counts as none, so that one job can't make reading many fail.
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

    -- The priority in a payload, as text, cut to the length that may be meaningful.
    create or replace function priorityd.priority_word(p_payload jsonb)
    returns text language sql immutable parallel safe as $$
        select left(p_payload #>> '{priority}', 33)
    $$;

    -- The priority for a word or score; a score between two priorities counts as the lower one. Null if it is neither.
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

    -- The priority of the jobs of each of these repositories. If one has several rows, the most relevant row counts.
    create or replace function priorityd.job_priorities(p_repository_ids uuid[])
    returns table (repository_id uuid, priority text)
    language sql stable as $$
        select t.repository_id, priorityd.job_priority(t.priority, t.is_workspace_repo)
        from priorityd.tracked_rows_of(p_repository_ids) t
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

    -- Raises if this is not a list of jobs, or is too long for one call.
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

    -- Why this can't be an event's data, or null. The same as core/jobs/validation.py, except for what jsonb can't hold.
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
            return 'has data that is not an object';
        end if;
        if jsonb_typeof(coalesce(p_data -> 'metadata', '{}')) <> 'object' then
            return 'has data.metadata that is not an object';
        end if;
        if jsonb_path_exists(p_data, '$.**{101 to last}') then
            return 'has data that is nested deeper than 100 levels';
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

    -- Why this job can't be queued, or null. It may not contain fields that are set when its event is built.
    create or replace function priorityd.explain_refused_job(p_job jsonb)
    returns text language plpgsql immutable as $$
    declare
        c_uuid constant text := '^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$';
        v_data constant jsonb := coalesce(nullif(p_job -> 'data', 'null'), '{}');
        v_reason text;
        v_own text;
    begin
        if jsonb_typeof(p_job) is distinct from 'object' then
            return 'is not an object';
        end if;
        if (p_job ->> 'repository_id' ~ c_uuid) is not true then
            return 'has no repository_id that is a uuid';
        end if;
        if coalesce(p_job ->> 'job_id' ~ c_uuid, true) is not true then
            return 'has a job_id that is not a uuid';
        end if;
        if coalesce(jsonb_typeof(p_job -> 'repository_name'), 'null') not in ('string', 'null') then
            return 'has a repository_name that is not text';
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
        return 'may not contain ' || v_own || ', which priorityd sets';
    end
    $$;

    -- The same for a list of jobs, with the type of each: its own, else p_job_type. `reason` is null if it can be queued.
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

    -- The events of jobs, ready to be sent to Inngest from any language, each with the priority that its repository has
    -- now. Jobs have the same form as in queue_repository_jobs: {"repository_id": "...", "repository_name": "acme/web",
    -- "data": {...}, "job_id": "...", "job_type": "..."}, where only the first field is required. job_id becomes the event's id,
    -- by which Inngest recognises a repeat for 24 hours. A malformed job is listed in `refused`, without its data, with its
    -- position and the reason.
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
            select j.*, case when t.repository_id is not null then to_jsonb(t) end as tracked,
                priorityd.job_priority(t.priority, t.is_workspace_repo) as priority
            from judged j
            left join priorityd.tracked_rows_of(
                array(select (w.job ->> 'repository_id')::uuid from judged w where w.reason is null)
            ) t on t.repository_id = (j.job ->> 'repository_id')::uuid
            where j.reason is null
        )
        select jsonb_build_object(
            'events', array(
                select jsonb_build_object(
                    'name', p.event_name,
                    'id', coalesce((p.job ->> 'job_id')::uuid, gen_random_uuid()),
                    'data', priorityd.job_data(p.job) || jsonb_build_object(
                        'priority', priorityd.score(p.priority),
                        'metadata', priorityd.job_metadata(p.tracked, p.priority) || coalesce(p.job #> '{data,metadata}', '{}')
                    )
                )
                from prioritised p
                order by p.position
            ),
            'refused', array(
                select jsonb_build_object(
                    'position', j.position,
                    'job', case when jsonb_typeof(j.job) = 'object' then j.job - 'data' else j.job end,
                    'reason', j.reason
                )
                from judged j
                where j.reason is not null
                order by j.position
            )
        )
        into v_answer;
        return v_answer;
    end
    $$;

    perform priorityd.grant_access();
end
$functions$;
