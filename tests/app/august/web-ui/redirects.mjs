// Target of the redirect from `/`.
export const HOME = "/dashboard";
