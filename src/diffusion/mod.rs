//! The mathematics of diffusion: noise schedules, the forward process, and each reverse solver as a table of steps.
