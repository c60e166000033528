import { page } from "ua-markup";

export const GREETING = "Universal Agent";

export default (settings) => page(GREETING, "<p>Chat</p>", settings);
