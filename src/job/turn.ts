/**
 * Lets the event loop turn once. Engines block it while they compute; signals, decoded images and terminal output are
 * handled only when it turns.
 */
export function turn(): Promise<void> {
  return new Promise(setImmediate);
}
