"use strict";
// Shows the OpenAPI document of this server. A server with a token is asked with the token that the user gives, or that
// the address has after the hash sign: /docs#token=TOKEN.
const SPEC = "api/v1/openapi.json";

function authorized(request, token) {
  const here = new URL(request.url, document.baseURI).origin === location.origin;
  if (token && here) {
    request.headers = { ...request.headers, Authorization: `Bearer ${token}` };
  }
  return request;
}

async function show(token) {
  const request = authorized({ url: SPEC, headers: {} }, token);
  const answer = await fetch(request.url, { headers: request.headers });
  if (answer.status === 401) {
    ask(token ? "The token is wrong." : "");
    return;
  }
  SwaggerUIBundle({
    spec: await answer.json(),
    dom_id: "#docs",
    defaultModelsExpandDepth: 0,
    requestInterceptor: (asked) => authorized(asked, token),
  });
}

function ask(problem) {
  const form = document.createElement("form");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const button = document.createElement("button");
  label.textContent = `${problem} This server needs its token: `.trimStart();
  input.type = "password";
  input.autocomplete = "off";
  button.textContent = "Show the documentation";
  label.append(input);
  form.append(label, button);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    show(input.value);
  });
  document.getElementById("docs").replaceChildren(form);
}

show(new URLSearchParams(location.hash.slice(1)).get("token"));
