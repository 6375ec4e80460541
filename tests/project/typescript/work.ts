// What the guide calls the application's own: the work.
export async function capture(repositoryId: string) {
  if (repositoryId === process.env.BROKEN_REPOSITORY) throw new Error("GitHub says no");
}
