// A page that uses the package @fanfare/client: it shows what comes, how its connection is, and what it was told.

import { connect } from "../../clients/web/dist/index.js";

const { url, token } = Object.fromEntries(new URLSearchParams(location.search));
const list = document.querySelector("#messages");
const status = document.querySelector("#status");

window.history_ = [];
window.told = [];
window.addEventListener("online", () => (window.onlineAt = performance.now()));

const client = connect({ url, token: async () => token });
const show = () => {
  status.textContent = client.status.getSnapshot().state;
  window.history_.push(status.textContent);
  if (status.textContent === "connected") window.connectedAt = performance.now();
};
client.status.subscribe(show);
show();
client.on("message:new", ({ id }) => {
  const row = document.createElement("li");
  row.dataset.id = id;
  row.textContent = `Message ${id}`;
  list.append(row);
});
client.onRecovered(() => window.told.push("recovered"));
client.onMissed(() => window.told.push("missed"));
client.room({ join: "subscribe:chat", leave: "unsubscribe:chat" }, { chatId: 7 }, { onJoined: () => window.told.push("joined") });
