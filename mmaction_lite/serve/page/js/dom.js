// Elements of the page. All text enters as text nodes: a file name or a class name never becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/** Return the element with an id of index.html. */
export const $ = (id) => document.getElementById(id);

/** Create an HTML element. `properties` are attributes, or listeners if the value is a function. */
export function element(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** Create an SVG element. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Create an icon of icons.svg. */
export function icon(name) {
  return svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("use", { href: `icons.svg#${name}` }));
}

/** Replace the icon of a button. */
export function setIcon(button, name) {
  button.querySelector("use").setAttribute("href", `icons.svg#${name}`);
}

/** Read a text to users of a screen reader, at most one text at a time. */
export function announce(text) {
  $("live").textContent = text;
}

/** Whether the user wants no motion that is not needed. */
export const wantsLessMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Return the value of a colour of the style sheet, for canvases. */
export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
