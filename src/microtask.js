/**
 * In place of the platform's `queueMicrotask`, which takes more time than all promises of a request together
 * (`npm run bench -- --crossings`). tools/build.mjs lets the JavaScript border call it.
 *
 * @param {() => void} task
 */
export function queueMicrotask(task) {
  Promise.resolve().then(task).catch(reportError);
}
