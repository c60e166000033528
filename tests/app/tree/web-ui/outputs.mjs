// What the build writes beside the pages, for a test about large outputs.
export const FILES = 0;
export const MEGABYTES = 0;
