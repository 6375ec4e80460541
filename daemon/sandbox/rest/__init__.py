"""A stand-in for PostgREST 14 behind Supabase's gateway: functions, and tables as far as the docs use them.

It reproduces what a caller can notice: the role from the token, one transaction per request, named arguments
from a schema cache that only `NOTIFY pgrst, 'reload schema'` refreshes, statement time-outs by role and
function, at most 1,000 rows, a pool of ten connections, and the bodies and statuses of errors. `table_query`
lists what is served of tables. The rest, such as filters on the results of functions, is refused rather than
ignored.
"""
