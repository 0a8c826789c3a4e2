// Show openapi.json as a list of routes. Everything is inserted as text, never as HTML.

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function resolve(schema, document_) {
  if (!schema?.$ref) return schema ?? {};
  return schema.$ref.slice(2).split("/").reduce((value, key) => value?.[key], document_) ?? {};
}

function typeOf(schema, document_) {
  const found = resolve(schema, document_);
  if (found.anyOf) return found.anyOf.map((each) => typeOf(each, document_)).join(" or ");
  if (found.type === "array") return `list of ${typeOf(found.items ?? {}, document_)}`;
  return found.format ?? (schema?.$ref ? found.title : found.type) ?? "value";
}

function table(rows) {
  const head = element("tr", {}, ...["name", "type", "description"].map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((row) => element("tr", {}, element("td", {}, element("code", {}, row[0])), element("td", {}, row[1]), element("td", {}, row[2])));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

function properties(schema, document_) {
  const found = resolve(schema, document_);
  return Object.entries(found.properties ?? {}).map(([name, value]) => [
    name, typeOf(value, document_), resolve(value, document_).description ?? value.description ?? "",
  ]);
}

function routeOf(path, method, route, document_) {
  const node = element("details", {}, element("summary", {},
    element("span", { class: "method" }, method.toUpperCase()), element("code", {}, path), ` ${route.summary ?? ""}`));
  if (route.description) node.append(element("p", {}, route.description));
  if (route.parameters?.length) {
    node.append(element("h3", {}, "Parameters"), table(route.parameters.map((each) => [each.name, typeOf(each.schema, document_), each.description ?? ""])));
  }
  for (const [kind, content] of Object.entries(route.requestBody?.content ?? {})) {
    node.append(element("h3", {}, `Request (${kind})`), table(properties(content.schema, document_)));
  }
  for (const [status, answer] of Object.entries(route.responses ?? {})) {
    node.append(element("h3", {}, `Answer ${status}: ${answer.description ?? ""}`));
    const rows = properties(answer.content?.["application/json"]?.schema, document_);
    if (rows.length) node.append(table(rows));
  }
  return node;
}

async function show() {
  const main = document.getElementById("routes");
  const document_ = await (await fetch("../openapi.json")).json();
  const routes = Object.entries(document_.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, route]) => routeOf(path, method, route, document_)));
  main.replaceChildren(...routes);
}

show().catch((error) => {
  document.getElementById("routes").replaceChildren(element("p", {}, `openapi.json cannot be read: ${error.message}`));
});
