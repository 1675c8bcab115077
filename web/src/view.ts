// What the page shows, as the fragment of its address: `#/lines/logs/app.log?follow&last=200|/server` is a log beside the
// state of the server. A browser does not send the fragment, so no server and no log has it.

export const KINDS = ["countdowns", "lines", "messages", "server"] as const;
export type Kind = (typeof KINDS)[number];

/** One pane: what it shows, and how. A parameter without a value has the value "". */
export interface View {
  kind: Kind;
  path: string;
  params: Record<string, string>;
}

/** The number of panes that fit beside each other, which is also the number of streams. */
export const MAX_PANES = 4;

/** Reads the fragment of an address. A part that is not understood is left out. */
export function parseViews(hash: string): View[] {
  const views = hash.replace(/^#/, "").split("|").map(parseView);
  const known = views.filter((view) => view !== undefined).slice(0, MAX_PANES);
  return known.length > 0 ? known : [{ kind: "countdowns", path: "", params: {} }];
}

function parseView(text: string): View | undefined {
  const [route = "", query = ""] = splitOnce(text, "?");
  const [kind, ...rest] = route.replace(/^\//, "").split("/").map(decode);
  if (!KINDS.includes(kind as Kind)) return undefined;
  const params: Record<string, string> = {};
  for (const pair of query.split("&").filter(Boolean)) {
    const [name = "", value = ""] = splitOnce(pair, "=");
    params[decode(name)] = decode(value);
  }
  return { kind: kind as Kind, path: rest.join("/"), params };
}

export function formatViews(views: readonly View[]): string {
  return `#${views.map(formatView).join("|")}`;
}

export function formatView({ kind, path, params }: View): string {
  const route = path === "" ? kind : `${kind}/${path.split("/").map(encode).join("/")}`;
  const pairs = Object.entries(params).map(([name, value]) => (value === "" ? name : `${name}=${encode(value)}`));
  return `/${route}${pairs.length === 0 ? "" : `?${pairs.join("&")}`}`;
}

/** A view with other parameters; those that are undefined are removed. */
export function withParams(view: View, changes: Record<string, string | undefined>): View {
  const params: Record<string, string> = {};
  for (const [name, value] of Object.entries({ ...view.params, ...changes })) {
    if (value !== undefined) params[name] = value;
  }
  return { ...view, params };
}

/** A parameter that is a whole number, or undefined if it is missing or is not one. */
export function numberParam(view: View, name: string): number | undefined {
  const text = view.params[name];
  const value = Number(text);
  return text !== undefined && /^-?\d{1,16}$/.test(text) && Number.isSafeInteger(value) ? value : undefined;
}

/** Encodes what an address cannot have, and leaves what people read in topics and times. */
function encode(text: string): string {
  return encodeURIComponent(text).replace(/%(2C|3A|2A|24|40|3B)/g, decodeURIComponent);
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)];
}
