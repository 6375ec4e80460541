// One RPC, one refused RPC, a table used in every way that is served and in one that is not, and a subscription that
// hears of a row's three changes.
// Arguments: URL and service_role key. Prints "live" when changes flow, then one JSON line per result.
import { createClient } from "@supabase/supabase-js";
import WebSocket from "ws";

const [url, key] = process.argv.slice(2);
// Node 20 has no WebSocket of its own.
const supabase = createClient(url, key, { realtime: { transport: WebSocket } });
const print = (name, value) => console.log(JSON.stringify({ name, value }));

const snapshot = await supabase.rpc("workspace_priority_snapshot");
print("rpc", { status: snapshot.status, keys: Object.keys(snapshot.data ?? {}) });
const missing = await supabase.rpc("no_such_function", { a: 1 });
print("missing", { status: missing.status, code: missing.error?.code });

const workspaces = () => supabase.from("workspaces");
const added = await workspaces().insert([{ slug: "b" }, { slug: "a" }, { slug: "c" }]).select("id, slug").throwOnError();
const ids = added.data.map((row) => row.id);
const two = await workspaces().select("slug", { count: "exact" }).in("id", ids).order("slug").limit(2);
const renamed = await workspaces().update({ name: "A" }).eq("slug", "a").select("name").single();
const none = await workspaces().select().eq("slug", "none").maybeSingle();
const without = await workspaces().update({ name: "all" });
const upsert = await workspaces().upsert({ slug: "a" });
const gone = await workspaces().delete({ count: "exact" }).in("id", ids);
print("tables", {
  two: [two.status, two.data, two.count],
  renamed: renamed.data,
  none: [none.data, none.error],
  without: [without.status, without.error?.message],
  upsert: [upsert.status, upsert.error?.code],
  gone: [gone.status, gone.count],
});

const types = [];
const channel = supabase
  .channel("wr")
  .on("postgres_changes", { event: "*", schema: "public", table: "workspace_repositories" }, async (change) => {
    types.push(change.eventType);
    print("change", { type: change.eventType, new: change.new, old: change.old });
    if (types.length === 3) {
      await supabase.removeChannel(channel);
      process.exit(0);
    }
  })
  .on("system", {}, (message) => print("system", message))
  .subscribe((status, error) => print("status", { status, error: error?.message ?? null }));
