// The package for browsers, which the tests bundle as a program would.
export * from "perennial-client/web";
