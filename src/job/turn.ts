/**
 * Lets the event loop have one turn: engines compute without yielding, and signals, decoded images and the terminal
 * wait until somebody does.
 */
export function turn(): Promise<void> {
  return new Promise(setImmediate);
}
