// A line plot of the last minutes.

import { useEffect, useRef, useState } from "preact/hooks";
import { clock } from "./format";
import { Panel } from "./ui";

export interface Line {
  name: string;
  /** A gap where there is nothing to say. */
  values: (number | undefined)[];
}

const HEIGHT = 150;
const [LEFT, RIGHT, TOP, BOTTOM] = [54, 8, 10, 22];
/** The axis begins with a minute and grows to all that is kept. */
const RANGE_MIN_MS = 60_000;
/** Seconds between the marks of the time axis. */
const STEPS_S = [15, 30, 60, 180, 300, 900];
const TICKS_MAX = 5;

/** The least round number that is not below. */
function roundUp(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((n) => n * power).find((n) => n >= value * 0.999) ?? 10 * power;
}

interface Props {
  title: string;
  times: number[];
  lines: Line[];
  text: (value: number) => string;
  /** How much time is shown, and how far apart points of one line may be, in milliseconds. */
  most: number;
  gap: number;
  /** The axis never ends below this. */
  least?: number;
}

export function Plot({ title, times, lines, text, most, gap, least = 1 }: Props) {
  const frame = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(420);
  const [over, setOver] = useState<number | undefined>();
  useEffect(() => {
    const element = frame.current;
    if (!element) return;
    const observer = new ResizeObserver(() => setWidth(Math.max(200, element.clientWidth)));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  const end = times.at(-1) ?? Date.now();
  const range = Math.min(most, Math.max(RANGE_MIN_MS, end - (times[0] ?? end)));
  const start = end - range;
  const step = STEPS_S.find((s) => (s * 1000 * TICKS_MAX) >= range) ?? 900;
  const ticks = Array.from({ length: Math.floor(range / 1000 / step) + 1 }, (_, n) => n * step);
  const top = roundUp(Math.max(least, ...lines.flatMap((line) => line.values.map((v) => v ?? 0))));
  const x = (at: number) => LEFT + ((at - start) / range) * (width - LEFT - RIGHT);
  const y = (value: number) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
  const path = (line: Line) => {
    let [d, last] = ["", -Infinity];
    line.values.forEach((value, i) => {
      const at = times[i]!;
      if (value === undefined) return;
      d += `${at - last > gap ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
      last = at;
    });
    return d;
  };
  const shown = over !== undefined && over < times.length ? over : times.length - 1;
  const said = (line: Line) => {
    const value = line.values[shown];
    return value === undefined ? "—" : text(value);
  };
  const peak = (line: Line) => Math.max(0, ...line.values.map((v) => v ?? 0));
  const move = (clientX: number) => {
    const box = frame.current?.getBoundingClientRect();
    if (!box || times.length === 0) return;
    const wanted = start + ((clientX - box.left - LEFT) / (width - LEFT - RIGHT)) * range;
    let best = 0;
    times.forEach((at, i) => {
      if (Math.abs(at - wanted) < Math.abs(times[best]! - wanted)) best = i;
    });
    setOver(best);
  };
  const label = `${title}: ${lines.map((line) => `${line.name} now ${said(line)}, at most ${text(peak(line))}`).join("; ")}`;

  return (
    <Panel title={title} class="plot" side={<span class="plot-time num">{over !== undefined && times[shown] ? clock(times[shown]).slice(0, 8) : ""}</span>}>
      <ul class="legend">
        {lines.map((line, i) => (
          <li key={line.name}>
            <i class={`key key-${i}`} />
            {line.name} <strong class="num">{said(line)}</strong>
          </li>
        ))}
      </ul>
      <div class="plot-frame" ref={frame} onPointerMove={(e) => move(e.clientX)} onPointerLeave={() => setOver(undefined)}>
        <svg role="img" aria-label={label} width={width} height={HEIGHT} viewBox={`0 0 ${width} ${HEIGHT}`} data-points={times.length}>
          {[0, 0.5, 1].map((share) => (
            <g key={share}>
              <line class="grid" x1={LEFT} x2={width - RIGHT} y1={y(top * share)} y2={y(top * share)} />
              <text class="tick" x={LEFT - 8} y={y(top * share) + 4} text-anchor="end">
                {text(top * share)}
              </text>
            </g>
          ))}
          {ticks.map((ago) => {
            const place = x(end - ago * 1000);
            return (
              <text key={ago} class="tick" x={place} y={HEIGHT - 4} text-anchor={ago === 0 ? "end" : place < LEFT + 16 ? "start" : "middle"}>
                {ago === 0 ? "now" : ago % 60 === 0 ? `−${ago / 60} min` : `−${ago} s`}
              </text>
            );
          })}
          {lines.length === 1 && times.length > 1 ? <path class="area" d={areaOf(path(lines[0]!), y(0))} /> : null}
          {lines.map((line, i) => (
            <path key={line.name} class={`line line-${i}`} d={path(line)} />
          ))}
          {over !== undefined && times[shown] ? <line class="cross" x1={x(times[shown])} x2={x(times[shown])} y1={TOP} y2={HEIGHT - BOTTOM} /> : null}
        </svg>
      </div>
    </Panel>
  );
}

/** Closes each piece of a line down to the axis. */
function areaOf(path: string, floor: number): string {
  return path
    .split("M")
    .filter(Boolean)
    .map((piece) => {
      const points = piece.split("L");
      const [first, last] = [points[0]!.split(" ")[0], points.at(-1)!.split(" ")[0]];
      return `M${piece}L${last} ${floor}L${first} ${floor}Z`;
    })
    .join("");
}
