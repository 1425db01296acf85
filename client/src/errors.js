/** @import { CloakroomErrorDetails } from "../index.d.ts" */

/** What went wrong: `code` is of the Worker's problem, or one of ours; `message` says what to do. */
export class CloakroomError extends Error {
  /** @param {string} code @param {string} message @param {CloakroomErrorDetails} [more] */
  constructor(code, message, more) {
    super(message);
    Object.assign(this, { name: "CloakroomError", code, maybeDone: false, ...more });
  }
}
