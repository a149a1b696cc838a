// NODE_EXTRA_CA_CERTS=CA node client.js NAME: the peer's address, and the status of a request.
require("https").get({ host: process.argv[2], path: "/", agent: false }, (response) => {
  console.log("node", response.socket.remoteAddress, response.statusCode);
  response.resume();
}).on("error", (error) => { console.log("node", error.code); process.exit(1); });
