"""A stand-in for PostgREST (as of version 14) behind Supabase's gateway: functions and tables.

What a caller can notice is kept: the role from the token, one transaction per request, named arguments from
a schema cache that only `NOTIFY pgrst, 'reload schema'` refreshes, statement time-outs by role and function,
1,000 rows at most, a pool of ten connections, and the error bodies and statuses. `table_query` lists what is
served of tables. What is not, as filters on the results of functions, is refused rather than ignored.
"""
