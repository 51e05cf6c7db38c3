// What each session of a group got, held against the log that the store has in the end: a store may lose what it acknowledged,
// but no session may go on as if nothing had happened.

/** What a session got, in parts: each but the first begins where the session was told to begin anew. */
export class Course {
  parts = [{ since: 0, events: [] }];

  add(cursor, id) {
    this.parts.at(-1).events.push({ cursor, id });
  }

  /** The session is a new one. It has events for certain once it `is in its rooms again`. */
  begin() {
    const part = { since: Infinity, events: [] };
    this.parts.push(part);
    return part;
  }

  /** Forgets what has been counted. */
  settle() {
    this.parts = [{ ...this.parts.at(-1), since: 0, events: [] }];
  }
}

export const nothingWrong = () => ({ missing: 0, doubled: 0, disordered: 0, strange: 0, unaware: 0 });

/** The events of one chat in the log, each with its place among them. */
export class Chapter {
  places = new Map();
  events = [];

  add(event) {
    this.places.set(event.cursor, this.events.length);
    this.events.push(event);
  }
}

/**
 * What is wrong with a course. `chapter` is what the log has for the session; `acknowledged` maps the cursor of every acknowledged event to its id;
 * `written(id)` is when an event was given to its producer.
 */
export function judge(course, chapter, acknowledged, written) {
  const faults = nothingWrong();
  const seen = new Set();
  course.parts.forEach((part, number) => {
    const isLast = number === course.parts.length - 1;
    // The first part begins with the log, the others where a session enters its room again.
    let [place, first, lost] = [-1, number === 0 ? 0 : Infinity, 0];
    const there = new Set();
    for (const { cursor, id } of part.events) {
      if (seen.has(cursor)) faults.doubled += 1;
      seen.add(cursor);
      const at = chapter.places.get(cursor);
      if (at === undefined) {
        lost += 1;
        // Another event has this cursor.
        faults.strange += Number((acknowledged.get(cursor) ?? id) !== id);
        continue;
      }
      faults.strange += Number(chapter.events[at].id !== id);
      // It has gone on from an event that was lost.
      faults.unaware += Number(lost > 0);
      faults.disordered += Number(at < place);
      place = Math.max(place, at);
      first = Math.min(first, at);
      there.add(at);
    }
    faults.unaware += Number(isLast && lost > 0);
    const end = isLast ? chapter.events.length : place + 1;
    for (let at = 0; at < end; at++) {
      const isDue = at >= first || (isLast && written(chapter.events[at].id) > part.since);
      faults.missing += Number(isDue && !there.has(at));
    }
  });
  return faults;
}

/** Adds up. */
export function sum(all) {
  const total = nothingWrong();
  for (const one of all) for (const key of Object.keys(total)) total[key] += one[key];
  return total;
}

const TITLES = ["acknowledged", "lost", "deliveries", "missing", "doubled", "disordered", "strange", "unaware", "recoveries", "fresh"];

/** Rows of counts as a Markdown table. */
export function table(rows) {
  const line = (cells) => `| ${cells.join(" | ")} |`;
  const head = ["scenario", ...TITLES.map((title) => (title === "disordered" ? "out of order" : title)), "s"];
  const body = rows.map((row) => line([row.name, ...TITLES.map((title) => row[title]), row.seconds.toFixed(1)]));
  return [line(head), line(head.map(() => "---")), ...body].join("\n");
}
