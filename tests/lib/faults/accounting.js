// What each session got, held against what the producers were answered.

/** What one session got, in the order in which it came. */
export class Record {
  seqs = [];
  ids = [];
  /** The last seq before those kept here. */
  before = 0;

  add(seq, id) {
    this.seqs.push(seq);
    this.ids.push(id);
  }

  get last() {
    return this.seqs.at(-1) ?? this.before;
  }

  /** Forgets what has been counted. */
  settle() {
    this.before = this.last;
    [this.seqs, this.ids] = [[], []];
  }
}

export const nothingWrong = () => ({ missing: 0, doubled: 0, disordered: 0, strange: 0 });

/** What is wrong with a record, where `wanted` maps the seq of every acknowledged event of its rooms to the event's id. */
export function judge(record, wanted) {
  const faults = nothingWrong();
  const seen = new Set();
  let last = record.before;
  record.seqs.forEach((seq, i) => {
    if (seen.has(seq)) faults.doubled += 1;
    else if (seq <= last) faults.disordered += 1;
    // Nobody was told that this one is published, or it is another one than they were told of.
    if (wanted.get(seq) !== record.ids[i]) faults.strange += 1;
    seen.add(seq);
    last = Math.max(last, seq);
  });
  for (const seq of wanted.keys()) faults.missing += Number(!seen.has(seq));
  return faults;
}

/** Adds up. */
export function sum(all) {
  const total = nothingWrong();
  for (const one of all) for (const key of Object.keys(total)) total[key] += one[key];
  return total;
}

const TITLES = ["acknowledged", "deliveries", "missing", "doubled", "disordered", "strange", "recoveries", "fresh"];

/** Rows of counts as a Markdown table. */
export function table(rows) {
  const line = (cells) => `| ${cells.join(" | ")} |`;
  const head = ["scenario", ...TITLES.map((title) => (title === "disordered" ? "out of order" : title)), "s"];
  const body = rows.map((row) => line([row.name, ...TITLES.map((title) => row[title]), row.seconds.toFixed(1)]));
  return [line(head), line(head.map(() => "---")), ...body].join("\n");
}
