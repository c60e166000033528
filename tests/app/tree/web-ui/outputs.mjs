// Additional outputs of the build, for tests with large outputs.
export const FILES = 0;
export const MEGABYTES = 0;
