// A reporter for node --test: names each file with a failed test once, a line each.

export default async function* failedFiles(events) {
  const files = new Set();
  for await (const { type, data } of events) {
    if (type !== "test:fail" || files.has(data.file ?? data.name)) continue;
    files.add(data.file ?? data.name);
    yield `${data.file ?? data.name}\n`;
  }
}
