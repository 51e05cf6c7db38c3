// The examples of README.md as files, beside what an application has of its own.

import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { vi } from "vitest";
import { ROOT, until } from "../../../tests/lib/fanfare.js";
import { user } from "../../../tests/lib/tokens.js";

export const HERE = path.join(ROOT, "clients/web");
const GENERATED = path.join(HERE, "tests/generated");

export interface Examples {
  folder: string;
  names: string[];
  /** An example's module. Of this package it gets the source; that the built package fits it is what the compiler says. */
  load<T>(name: string): Promise<T>;
  /** Waits until the examples have printed a text. */
  prints(text: string): Promise<boolean>;
}

/** Writes them into a folder of its own, with the addresses of a running server, for user 1 of a tenant. */
export function examples(name: string, { url, grpc }: { url: string; grpc: string }, tenant: string): Examples {
  const folder = path.join(GENERATED, name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const write = (file: string, text: string): void => writeFileSync(path.join(folder, file), text);
  const copy = (from: string, to: string): void => cpSync(path.join(HERE, "tests", from), path.join(folder, to), { recursive: true });
  const blocks = [...readFileSync(path.join(HERE, "README.md"), "utf8").matchAll(/^```tsx?\n\/\/ (\S+)\n([\s\S]*?)^```$/gm)];
  for (const [, file, code] of blocks) {
    write(file!, code!.replaceAll("http://127.0.0.1:3000", url).replaceAll("http://127.0.0.1:50051", grpc));
  }
  copy("generated/events.ts", "events.ts");
  for (const part of ["messenger", "fanfare"]) copy(`generated/${part}`, `generated/${part}`);
  write("session.ts", `export const getToken = async (): Promise<string | null> => ${JSON.stringify(user(1, tenant))};\n`);
  // Through the package's own exports, as an application sees it.
  write("tsconfig.json", JSON.stringify({ extends: "../../../tsconfig.json", compilerOptions: { paths: {}, types: [] }, include: ["."], exclude: [] }));
  const printed: string[] = [];
  vi.spyOn(console, "log").mockImplementation((...words) => void printed.push(words.join(" ")));
  return {
    folder,
    names: blocks.map(([, file]) => file!),
    load: (file) => import(/* @vite-ignore */ path.join(folder, file)),
    prints: (text) => until(() => printed.some((line) => line.includes(text)), `"${text}" to be printed`),
  };
}
