// A reporter for node --test: names each file with a failed test once, a line each.

export default async function* failedFiles(events) {
  const files = new Set();
  for await (const { type, data } of events) {
    const file = data?.file ?? data?.name;
    if (type !== "test:fail" || files.has(file)) continue;
    files.add(file);
    yield `${file}\n`;
  }
}
