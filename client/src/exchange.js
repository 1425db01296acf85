import { CloakroomError } from "./errors.js";

/**
 * One request and its answer, if that is a good one: its JSON or a member of it, headers, text.
 * @param {() => Promise<Response>} send
 * @param {string | null} member  that the answer must have and that is asked for, if any; null: the answer has no body
 * @returns {Promise<[any, Headers, string]>}
 */
export async function exchange(send, member) {
  /** @type {Record<string, unknown>} */
  const more = {};
  /** @param {string} code @param {string} message @param {unknown} [cause] */
  const failed = (code, message, cause) => new CloakroomError(code, message, { ...more, cause });

  /** @type {Response} */
  let response;
  try {
    response = await send();
  } catch (cause) {
    throw failed("network", "no answer; check baseUrl, network, cors.origins", cause);
  }

  const { status, headers, ok } = response;
  const type = /** @type {string} */ (headers.get("content-type"));
  more.status = status;
  more.retryAfter = secondsUntil(headers);
  let text, json;
  try {
    text = await response.text();
    if (/[/+]json\b/i.test(type)) json = JSON.parse(text);
  } catch (cause) {
    throw failed("incomplete", "cut off; try again", cause);
  }
  if (ok && (member === null ? status === 204 : json && (!member || typeof json[member] === "object")))
    return [member ? json[member] : json, headers, text];
  more.detail = json?.detail;
  if (ok || typeof json?.code !== "string")
    throw failed("not_cloakroom", `not Cloakroom (${status} ${type}); check baseUrl`);
  throw failed(json.code, json.detail ?? json.code);
}

/**
 * `Retry-After` in seconds. A date counts from the answer's own `Date`: the clock here may be wrong.
 * @param {Headers} headers
 */
function secondsUntil(headers) {
  // What is not there is no number, and no date.
  const value = /** @type {string} */ (headers.get("retry-after"));
  const seconds = /\D/.test(value)
    ? Math.ceil((Date.parse(value) - Date.parse(/** @type {string} */ (headers.get("date")))) / 1000)
    : +value;
  return seconds > 0 ? seconds : undefined;
}
