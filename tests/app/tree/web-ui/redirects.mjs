// Where `/` leads. In February it is a page of its own.
export const HOME = "";
