/** The Worker's log, as tests read it. */
import { lineOf } from "../../tools/log.mjs";

/** @typedef {import("../../tools/log.mjs").Line} Line */

/** The Worker's lines; not what workerd says. @param {{ logs: string[] }} worker @returns {Line[]} */
export const linesOf = ({ logs }) =>
  logs
    .join("")
    .split("\n")
    .flatMap((text) => lineOf(text) ?? []);

/** The lines of an event. @param {{ logs: string[] }} worker @param {string} event */
export const eventsIn = (worker, event) => linesOf(worker).filter((line) => line.event === event);

/** What the lines say to people, a line each. @param {{ logs: string[] }} worker */
export const messagesOf = (worker) =>
  linesOf(worker)
    .map(({ message }) => message)
    .join("\n");
