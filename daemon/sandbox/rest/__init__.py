"""A stand-in for PostgREST (as of version 14) behind Supabase's gateway: `/rest/v1/rpc/*` and nothing else.

What a caller can notice is kept: the role from the token, one transaction per request, named arguments from
a schema cache that only `NOTIFY pgrst, 'reload schema'` refreshes, statement time-outs by role and function,
1,000 rows at most, a pool of ten connections, and the error bodies and statuses. Filters, ordering and column
selection on results are not served and are refused rather than ignored.
"""
