/** The types of client.js, for editors and the type checker. */
export * from "../client/index.js";
