import { page } from "ua-markup";

export default () => page("Log in", "<h1>Log in</h1>");
