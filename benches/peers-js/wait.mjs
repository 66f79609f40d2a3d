/** How often a wait looks again, in milliseconds. */
export const LOOK_MS = 2

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
