// What the library needs is built with it, so that the copies have only themselves to build.
