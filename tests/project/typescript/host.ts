// Serves the guide's function as an application does, on a port that it prints.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { serve } from "inngest/node";
import { captureRepository } from "./capture.js";
import { inngest } from "./clients.js";

const server = createServer(serve({ client: inngest, functions: [captureRepository] }));
server.listen(0, "127.0.0.1", () => console.log((server.address() as AddressInfo).port));
