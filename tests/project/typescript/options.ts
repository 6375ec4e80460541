// What a function of the guide has told Inngest's SDK about itself.
export async function of(module: string, name: string) {
  return (await import(`./${module}.js`))[name].opts;
}
