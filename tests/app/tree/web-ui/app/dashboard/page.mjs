import { page } from "ua-markup";
import { GREETING } from "../page.mjs";

export default (settings) => page(GREETING, "<p>Dashboard</p>", settings);
