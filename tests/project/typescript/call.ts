// `node call.js MODULE FUNCTION ARGUMENTS`: calls a function of the guide and prints what it returns, or throws.
const [module, name, json] = process.argv.slice(2) as [string, string, string];
const exported = await import(`./${module}.js`);
try {
  console.log(JSON.stringify({ returned: (await exported[name](...JSON.parse(json))) ?? null }));
} catch (error) {
  console.log(JSON.stringify({ threw: (error as Error).message }));
}
process.exit();
