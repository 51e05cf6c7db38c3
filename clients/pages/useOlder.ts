// Scrolling back: asks for older messages when the list is near its top, and keeps in view what was in view.

import { useCallback, useLayoutEffect, useRef, type RefObject } from "react";

/** How near to the top, in pixels. */
const NEAR = 80;

/**
 * `before` is where the page of older messages begins, empty when there are none; `first` changes when older
 * messages are shown. Returns what the list's `onScroll` calls.
 */
export function useOlder(list: RefObject<HTMLElement | null>, before: string | undefined, first: unknown, load: (before: string) => void) {
  const height = useRef(0);
  const asked = useRef<string>(undefined);
  const look = useCallback(() => {
    const element = list.current;
    if (!element) return;
    height.current = element.scrollHeight;
    if (!before || asked.current === before || element.scrollTop > NEAR) return;
    asked.current = before;
    load(before);
  }, [list, before, load]);
  const shown = useRef(first);
  useLayoutEffect(() => {
    const element = list.current;
    if (element && shown.current !== undefined && shown.current !== first && asked.current !== undefined) {
      element.scrollTop += element.scrollHeight - height.current;
    }
    shown.current = first;
    // A page that does not fill the list is followed by the next one.
    if (element && element.scrollHeight <= element.clientHeight) look();
    if (element) height.current = element.scrollHeight;
  }, [list, first, before, look]);
  return look;
}
