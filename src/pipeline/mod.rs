//! What a user asks for: a prompt and a seed become a picture, step by step.
