/**
 * Sets variables of the environment that a native library reads when it is loaded, unless the user has set them. Called only
 * at the start of an engine, before its library is loaded: threads of libraries read the environment without a lock, and a
 * process can crash if it changes meanwhile. Nothing else in `src` changes the environment (test/environment.test.ts).
 * @param values a variable without a value is left alone
 */
export function setDefaults(values: Readonly<Record<string, string | undefined>>): void {
  for (const [name, value] of Object.entries(values)) if (value !== undefined) process.env[name] ??= value;
}
