// Passkeys: the one script of the service, on the pages where somebody proves who they
// are. It asks the browser for a passkey and posts the answer with an ordinary form.
(() => {
  const form = document.querySelector("form[data-passkey]");
  if (!form || !window.PublicKeyCredential) return;

  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

  // The server writes options as JSON; the browser wants bytes.
  const options = async () => {
    const answer = await fetch(form.dataset.options, { method: "POST" });
    if (!answer.ok) throw new Error("options: " + answer.status);
    const o = await answer.json();
    o.challenge = bytes(o.challenge);
    if (o.user) o.user.id = bytes(o.user.id);
    for (const list of [o.allowCredentials, o.excludeCredentials]) {
      for (const c of list || []) c.id = bytes(c.id);
    }
    return o;
  };

  const written = (credential) => {
    const r = credential.response;
    const response = { clientDataJSON: text(r.clientDataJSON) };
    if (r.attestationObject) {
      response.attestationObject = text(r.attestationObject);
      response.transports = r.getTransports ? r.getTransports() : [];
    } else {
      response.authenticatorData = text(r.authenticatorData);
      response.signature = text(r.signature);
      response.userHandle = r.userHandle ? text(r.userHandle) : "";
    }
    return JSON.stringify({
      id: credential.id, rawId: text(credential.rawId), type: credential.type, response,
      authenticatorAttachment: credential.authenticatorAttachment || undefined,
      clientExtensionResults: {},
    });
  };

  const create = form.dataset.passkey === "create";
  const failed = form.querySelector("[data-passkey-failed]");
  let waiting = null; // the offer that waits in the address field's suggestions

  const ask = async (extra) => {
    const publicKey = await options();
    const credential = create
      ? await navigator.credentials.create({ publicKey, ...extra })
      : await navigator.credentials.get({ publicKey, ...extra });
    form.elements.response.value = written(credential);
    form.submit();
  };

  const offer = async () => {
    if (create || !form.hasAttribute("data-autofill") || !PublicKeyCredential.isConditionalMediationAvailable) return;
    if (!(await PublicKeyCredential.isConditionalMediationAvailable())) return;
    waiting = new AbortController();
    await ask({ mediation: "conditional", signal: waiting.signal });
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    failed.hidden = true;
    if (waiting) waiting.abort();
    try {
      await ask({});
    } catch (_) {
      failed.hidden = false; // the person closed the browser's question, or has no passkey here
    }
  });
  form.hidden = false;
  for (const other of document.querySelectorAll("[data-without-passkey]")) other.hidden = true;
  offer().catch(() => {});
})();
