// The page's shell: who may see it, where one is, and whether the server can be reached.

import { useEffect, useRef, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { Code } from "@connectrpc/connect";
import { access, enter, expiryOf, signIn, signOut } from "./access";
import { adminWith, contact, problemOf } from "./api";
import { Catalogs, useCatalogs } from "./catalogs";
import { Events } from "./events";
import { Overview } from "./overview";
import { Playground } from "./playground";
import { href, place, type View, VIEWS } from "./router";
import { Sessions } from "./sessions";
import { figures, problemsOf, readFigures } from "./stats";
import { useStore } from "./store";
import { theme, THEMES, type Theme } from "./theme";
import { capital, many, span } from "./format";
import { announce, Announcer, useNow } from "./ui";

const NAMES: Record<View, string> = { overview: "Overview", sessions: "Sessions", events: "Events", catalogs: "Catalogs", playground: "Playground" };
const ICONS: Record<View, string> = {
  overview: "M3 12h4l3-8 4 16 3-8h4",
  sessions: "M16 20v-1.5a3.5 3.5 0 0 0-3.5-3.5h-5A3.5 3.5 0 0 0 4 18.5V20M10 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7M20 20v-1.5a3.5 3.5 0 0 0-2.6-3.4M15.5 4.2a3.5 3.5 0 0 1 0 6.6",
  events: "M4 6h16M4 12h16M4 18h10",
  catalogs: "M5 4h11a3 3 0 0 1 3 3v13H8a3 3 0 0 1-3-3zM5 17a3 3 0 0 1 3-3h11M9 8h6",
  playground: "M7 4.5v15l12-7.5z",
};

export function App() {
  const now = useStore(access);
  useEffect(() => void enter(), []);
  if (now.state === "loading") return <Splash text={now.problem ?? ""} />;
  if (now.state === "signed-out") return <SignIn problem={now.problem ?? ""} />;
  return <Shell development={now.development} />;
}

const Logo = () => (
  <svg class="logo" viewBox="0 0 32 32" aria-hidden="true">
    <rect width="32" height="32" rx="8" />
    <path class="horn" d="M7 13v6h3l8 5V8l-8 5z" />
    <path class="waves" d="M21.5 12a5.5 5.5 0 0 1 0 8M24 9a9.6 9.6 0 0 1 0 14" />
  </svg>
);

const Splash = ({ text }: { text: string }) => (
  <main class="splash">
    <Logo />
    <p role="status">{text}</p>
  </main>
);

function SignIn({ problem }: { problem: string }) {
  const [token, setToken] = useState("");
  const [wrong, setWrong] = useState(problem);
  const [busy, setBusy] = useState(false);
  const submit = async () => {
    const given = token.trim().replace(/^Bearer\s+/i, "");
    if (!given) return setWrong("Paste a token first.");
    const end = expiryOf(given);
    if (end !== undefined && end < Date.now()) return setWrong(`This token expired ${span(Date.now() - end)} ago. Make a new one.`);
    setBusy(true);
    try {
      await adminWith(given).getServer({});
      signIn(given);
    } catch (cause) {
      const { code, message } = problemOf(cause);
      setWrong(
        code === Code.PermissionDenied
          ? `This token may not see the console: ${message}`
          : code === Code.Unauthenticated
            ? message
            : `The server cannot be reached just now: ${message}`,
      );
    } finally {
      setBusy(false);
    }
  };
  return (
    <main class="sign-in">
      <form
        class="panel"
        onSubmit={(e) => {
          e.preventDefault();
          void submit();
        }}
      >
        <Logo />
        <h1>Sign in to Fanfare</h1>
        <label for="token">Admin token</label>
        <textarea
          id="token"
          class="mono"
          rows={4}
          value={token}
          placeholder="eyJ…"
          spellcheck={false}
          autocomplete="off"
          aria-describedby="token-help token-wrong"
          {...(wrong ? { "aria-invalid": true } : {})}
          onInput={(e) => {
            setToken(e.currentTarget.value);
            setWrong("");
          }}
          onKeyDown={(e) => {
            if (e.key === "Enter" && !e.shiftKey) {
              e.preventDefault();
              void submit();
            }
          }}
        />
        <p id="token-wrong" class="field-problem" role="alert">
          {wrong}
        </p>
        <button type="submit" class="button primary" disabled={busy}>
          {busy ? "Asking…" : "Sign in"}
        </button>
        <p id="token-help" class="dim small">
          A token with the scope <code>admin</code>, e.g. <code>fanfare token --jwt-secret … --user me --scope admin --tenant '*'</code>. It stays in this tab and is forgotten when
          the tab is closed.
        </p>
      </form>
    </main>
  );
}

const SHOWN: Record<View, () => ComponentChildren> = {
  overview: () => <Overview />,
  sessions: () => <Sessions />,
  events: () => <Events />,
  catalogs: () => <Catalogs />,
  playground: () => <Playground />,
};

function Shell({ development }: { development: boolean }) {
  const { view } = useStore(place);
  const { up } = useStore(contact);
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  useEffect(readFigures, []);
  useCatalogs();
  useEffect(() => {
    document.title = `${NAMES[view]} · Fanfare`;
    scrollTo(0, 0);
    // Whoever reads by ear or keyboard goes on at the view's title, but not when the page is opened.
    if (!first.current) main.current?.querySelector("h1")?.focus({ preventScroll: true });
    first.current = false;
  }, [view]);
  useEffect(() => announce(up ? "" : "The server does not answer"), [up]);
  return (
    <div class="shell">
      <a
        class="skip"
        href="#content"
        onClick={(e) => {
          e.preventDefault();
          main.current?.focus();
        }}
      >
        Skip to the content
      </a>
      <header class="bar">
        <a class="brand" href={href("overview")} aria-label="Fanfare, overview">
          <Logo />
          <span>Fanfare</span>
        </a>
        <nav class="nav" aria-label="Views">
          <ul>
            {VIEWS.map((name) => (
              <li key={name}>
                <a href={href(name)} {...(name === view ? { "aria-current": "page" as const } : {})}>
                  <svg viewBox="0 0 24 24" aria-hidden="true">
                    <path d={ICONS[name]} />
                  </svg>
                  <span>{NAMES[name]}</span>
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <div class="bar-side">
          <span class={`contact ${up ? "up" : "down"}`} data-contact={up ? "up" : "down"}>
            <i />
            <span>{up ? "Live" : "No contact"}</span>
          </span>
          <ThemeButton />
          {development ? null : (
            <button type="button" class="button small quiet" onClick={() => signOut()}>
              Sign out
            </button>
          )}
        </div>
      </header>
      <main id="content" class={`content view-${view}`} tabIndex={-1} ref={main}>
        {up ? <Degraded /> : <Away />}
        {SHOWN[view]()}
      </main>
      <Announcer />
    </div>
  );
}

function Away() {
  const { since } = useStore(contact);
  const now = useNow();
  return (
    <div class="banner" role="alert">
      <strong>The server does not answer</strong>
      <span>
        since <span class="num">{span(now - since)}</span>. What you see may be old. Trying again by itself…
      </span>
    </div>
  );
}

/** What is wrong with the store or the group, on every view. */
function Degraded() {
  const { servers, latest } = useStore(figures);
  const problems = problemsOf(servers);
  const silent = latest?.silentServers.length ?? 0;
  const stopped = problems.some((one) => one.stopsPublishing);
  const title = stopped ? "Events cannot be published" : silent > 0 ? `${many(silent, "server")} ${silent === 1 ? "does" : "do"} not answer` : problems.length > 0 ? "The store is degraded" : "";
  useEffect(() => announce(title), [title]);
  if (!title) return null;
  const texts = [...problems.map((one) => one.text), ...(stopped && silent > 0 ? [`${many(silent, "server")} ${silent === 1 ? "does" : "do"} not answer`] : [])];
  return (
    <div class={`banner ${stopped ? "" : "warn"}`} role="alert" data-degraded={stopped ? "stopped" : "degraded"}>
      <strong>{title}</strong>
      {texts.map((text) => (
        <span key={text}>{capital(text)}.</span>
      ))}
      {texts.length === 0 ? <span>What it and its bridges have is missing in what you see.</span> : null}
    </div>
  );
}

const THEME_TEXT: Record<Theme, string> = { system: "Auto", light: "Light", dark: "Dark" };

function ThemeButton() {
  const now = useStore(theme);
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]!;
  return (
    <button type="button" class="button small quiet theme" aria-label={`Colours: ${THEME_TEXT[now]}. Change to ${THEME_TEXT[next]}`} onClick={() => theme.set(next)}>
      <svg viewBox="0 0 24 24" aria-hidden="true">
        {now === "dark" ? <path d="M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z" /> : now === "light" ? <path d="M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6L19 19M19 5l-1.4 1.4M6.4 17.6L5 19" /> : <path d="M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18" />}
      </svg>
      <span>{THEME_TEXT[now]}</span>
    </button>
  );
}
