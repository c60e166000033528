// Target of the redirect from `/`. February has none.
export const HOME = "";
