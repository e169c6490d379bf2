// Every option, described once. In a description other options of the same record stand in backquotes under their names here, and each
// face puts its own names in their place. What is written behind a default is what the option is to its faces: see `spec`.
//
// `records` makes structs and readers of this file, and `cargo xtask generate` what other languages need.

options! {
    /// What to draw and how. Sizes are `[height, width]`, corners `[top, left]`, in pixels.
    SampleOptions {
        /// What to draw; several prompts are drawn at once. Models without a text encoder take the empty one only.
        prompt: Text = Text::default(), texts().command("Given several times, each is drawn");
        /// SDXL: what the second text encoder is told; the same as the first if absent.
        prompt_2: Option<Text> = None, texts();
        /// What to stay away from, one text for all pictures or one for each prompt; without effect at a `guidance_scale` of 1 or
        /// below. Absent is not empty to SDXL, which then takes an embedding of zeros.
        negative_prompt: Option<Text> = None, texts();
        /// SDXL: what the second text encoder is told to stay away from; the same as the first if absent.
        negative_prompt_2: Option<Text> = None, texts();
        /// How many pictures to draw of each prompt, all at once.
        num_images_per_prompt: usize = 1, count().never_recorded().limits(1.0, 64.0);
        /// Seed of the one random stream that all pictures of the run share. The same seed and options give the same pictures, the
        /// ones that diffusers draws with `torch.Generator("cpu").manual_seed(seed)`.
        seed: u64 = 0, seed().command("`random` or -1 for any: which one is said, and stands in the picture");
        /// A seed for each picture in place of one for all, as many as there are pictures. Each draws from a stream of its own, and is
        /// the picture that it would be alone.
        seeds: Vec<u64> = Vec::new(), seeds().never_recorded().conflicts(&["seed"]);
        /// Which of torch's random streams the seeds are for.
        generator: Stream = Stream::TorchCpu, choice(&[
            ("cpu", "`torch.Generator(\"cpu\")`"),
            ("cuda", "`torch.Generator(\"cuda\")`"),
        ]);
        /// Number of steps, diffusers' `num_inference_steps`. Where the scheduler's `steps_offset` has no room in so many, as with all T
        /// steps of DDPM, as much of it is left out as does not fit: diffusers cannot run these.
        steps: usize = 25, count().of_schedule().always_recorded().limits(1.0, 1000.0)
            .package("From and to how many, {@link ModelInfo.solverSteps} says.");
        /// Timesteps to visit in place of `steps`, descending, for solvers that take them.
        timesteps: Option<Vec<f64>> = None, numbers().of_schedule().conflicts(&["steps"]);
        /// Noise levels σ to visit in place of `steps`, descending, for solvers that take them; Euler's with the one where it arrives.
        sigmas: Option<Vec<f64>> = None, numbers().of_schedule().conflicts(&["steps", "timesteps"]);
        /// LCM: steps of the schedule that the model was distilled from; what its scheduler says if absent. TCD: the most steps of a
        /// run that may visit any timestep.
        original_inference_steps: Option<usize> = None, count().of_schedule();
        /// How strongly the prompt is followed: g in ε_u + g·(ε_c − ε_u). At 1 or below there is no guidance, and a step takes half the
        /// time.
        guidance_scale: f64 = 7.5, number().always_recorded().limits(0.0, 100.0);
        /// How far the guided prediction is brought back to the spread of the one that the prompt gives, from 0 to 1 (Lin et al. 2023,
        /// arXiv 2305.08891).
        guidance_rescale: f64 = 0.0, number().limits(0.0, 1.0);
        /// Which solver.
        scheduler: Scheduler = Scheduler::Checkpoint => {
            /// The solver that walks from noise to picture, with the checkpoint's settings; the one that the checkpoint was saved with
            /// if absent. A name such as "DPM++ 2M SDE Karras" says settings, too.
            solver: solver().of_schedule().conflicts(&["scheduler"]).package("One of {@link ModelInfo.solvers}.");
            /// A `scheduler_config.json`, used as it is in place of the checkpoint's own: its `_class_name` says which solver.
            scheduler: config().of_schedule().package("Not together with `solver`.").command("A folder with one will do");
        };
        /// Settings of the solver in place of the scheduler's own.
        solver_keys: SolverKeys = SolverKeys::default() => {
            /// Whether σ is spaced evenly in σ^(1/7), as Karras et al. do; what the scheduler's config says if absent.
            use_karras_sigmas: setting().of_schedule();
            /// Whether σ is spaced evenly in log σ; what the scheduler's config says if absent.
            use_exponential_sigmas: setting().of_schedule();
            /// Whether σ is spaced by quantiles of a Beta distribution; what the scheduler's config says if absent.
            use_beta_sigmas: setting().of_schedule();
            /// The equation that dpmpp_2m and dpmpp_2s solve: dpmsolver++, sde-dpmsolver++, dpmsolver or sde-dpmsolver.
            algorithm_type: name(&["dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"]).of_schedule();
            /// How many predictions a step of dpmpp_2m, dpmpp_2s, unipc or deis takes into account.
            solver_order: count().of_schedule().limits(1.0, 4.0).placeholder("2");
        };
        /// DDIM's and TCD's η: the share of DDPM's noise that each step adds, from 0 (deterministic) to 1 (ancestral). Other solvers pay
        /// no heed to it.
        eta: f64 = 0.0, number().of_schedule().limits(0.0, 1.0);
        /// DDIM: whether ε is computed anew from the clipped x̂_0.
        use_clipped_model_output: bool = false, flag().of_schedule();
        /// Height in pixels; if absent the model's own, and without a `mask` that of `image`.
        height: Option<usize> = None, count().value_name("PIXELS").limits(1.0, 8192.0)
            .package("A multiple of {@link ModelInfo.sizeMultiple}.");
        /// Width in pixels; if absent the model's own, and without a `mask` that of `image`.
        width: Option<usize> = None, count().value_name("PIXELS").limits(1.0, 8192.0)
            .package("A multiple of {@link ModelInfo.sizeMultiple}.");
        /// A picture to begin with, to fill or to enlarge.
        image: Option<Rgba> = None, picture().package("See {@link ModelInfo.takesImage}.").command("A PNG");
        /// What of `image` to draw anew: where it is white. As large as `image`, or brought to its size.
        mask: Option<Rgba> = None, picture().requires(&["image"]).command("A PNG");
        /// How much of the schedule to walk, from a little above 0 to 1, which forgets `image`. If absent 0.8, with a `mask` 1, and for
        /// SDXL 0.3, with a `mask` 0.9999.
        strength: Option<f64> = None, number().requires(&["image"]).limits(0.0, 1.0).placeholder("0.8, masked 1");
        /// In place of `strength` the timestep of training to begin at, whether or not a run would visit it: x_t of `image` there,
        /// √ᾱ_t·x_0 + √(1−ᾱ_t)·ε in the scale of the solver, and then the timesteps below it that a run would visit. Draws are those of
        /// `strength`, and where that begins at the same timestep the run is the same. Models without an autoencoder take a picture for
        /// this alone.
        start_timestep: Option<usize> = None, whole().requires(&["image"]).conflicts(&["strength"])
            .package("It is the x_t that {@link ForwardProcess.at} shows of `image` and `seed`.");
        /// Upscaler: how much noise is added to `image` before it is enlarged; 20 if absent.
        noise_level: Option<usize> = None, whole().limits(0.0, 1000.0).placeholder("20");
        /// How many of the text encoder's last layers to leave out; as the model was trained if absent.
        clip_skip: Option<usize> = None, whole().limits(0.0, 100.0).placeholder("0");
        /// What becomes of a prompt that is longer than the text encoder.
        long_prompts: LongPrompts = LongPrompts::Cut, choice(&[
            ("cut", "What is too much is dropped, and named in a warning"),
            ("chunks", "It is encoded in several parts"),
        ]);
        /// SDXL: how large the picture is said to have been before it was scaled; the run's size if absent.
        original_size: Option<[usize; 2]> = None, pair(["height", "width"]);
        /// SDXL: how far from its top and left the picture is said to have been cropped.
        crops_coords_top_left: [usize; 2] = [0, 0], pair(["top", "left"]);
        /// SDXL: the size that the picture is said to have been made for; the run's size if absent.
        target_size: Option<[usize; 2]> = None, pair(["height", "width"]);
        /// SDXL: `original_size` for the negative prompt; a run from noise takes it together with `negative_target_size` only.
        negative_original_size: Option<[usize; 2]> = None, pair(["height", "width"]);
        /// SDXL: `crops_coords_top_left` for the negative prompt, where both its sizes are given. A run that begins with a picture has
        /// one crop for both prompts, as in diffusers.
        negative_crops_coords_top_left: [usize; 2] = [0, 0], pair(["top", "left"]);
        /// SDXL: `target_size` for the negative prompt; a run from noise takes it together with `negative_original_size` only.
        negative_target_size: Option<[usize; 2]> = None, pair(["height", "width"]);
        /// Which pictures of a step are shown; those of the last are always decoded.
        preview: Preview = Preview::Auto, choice(&[
            ("auto", "`\"tiny\"` where there is a tiny autoencoder, or else `\"linear\"`"),
            ("decode", "By the model's own decoder, which may take longer than the step"),
            ("tiny", "By {@link LoadOptions.tinyVae}"),
            ("linear", "By a map from latents to colours, fitted to the decoder: soft, and next to free"),
            ("none", "None"),
        ]).typescript("PreviewMode").without_command();
        /// Whether pictures pass through the autoencoder in tiles even where the whole would fit the device: takes less memory and gives
        /// a slightly different picture.
        vae_tiling: bool = false, flag();
    }
}

options! {
    /// Whose forward process to show and how.
    ForwardOptions {
        /// The picture x_0, before it is encoded. Alpha is dropped, and colours too where the model is grey.
        image: Rgba = Rgba::default(), picture().required();
        /// What noise is added to.
        space: Space = Space::Latents, choice(&[
            ("latents", "What the model works on: where it has an autoencoder the latents of the picture, else its pixels"),
            ("pixels", "The pixels of the picture, whatever the model works on"),
        ]);
        /// Seed of ε, which is the same for every t, and before it of the draw from what the autoencoder makes of the picture: those of
        /// a run.
        seed: u64 = 0, seed();
        /// Which of torch's random streams the seed is for.
        generator: Stream = Stream::TorchCpu, choice(&[
            ("cpu", "`torch.Generator(\"cpu\")`"),
            ("cuda", "`torch.Generator(\"cuda\")`"),
        ]);
        /// Whose scale and timesteps x_t has; its noise schedule is the checkpoint's but for a config of its own.
        scheduler: Scheduler = Scheduler::Checkpoint => {
            /// The solver whose scale x_t has, as of a run: some hold x_0 + σ·ε. The checkpoint's own if absent.
            solver: solver();
            /// A `scheduler_config.json` in place of the checkpoint's own, as of a run.
            scheduler: config();
        };
        /// What the network is told; models without a text encoder take the empty one only.
        prompt: Text = Text::default(), text();
        /// What stands on the other side of guidance. Absent is not empty to SDXL, as in a run.
        negative_prompt: Option<Text> = None, text();
        /// How strongly the prompt is followed: g in ε_u + g·(ε_c − ε_u). At 1 or below the network is shown as it was trained.
        guidance_scale: f64 = 1.0, number();
        /// Height in pixels. If absent that of the picture, and for a model that works on pixels its own: as in a run from a picture.
        height: Option<usize> = None, count();
        /// Width in pixels. If absent that of the picture, and for a model that works on pixels its own: as in a run from a picture.
        width: Option<usize> = None, count();
        /// How latents become pictures. There is always one.
        preview: Preview = Preview::Auto, choice(&[
            ("auto", "`\"tiny\"` where there is a tiny autoencoder, or else `\"linear\"`"),
            ("decode", "By the model's own decoder"),
            ("tiny", "By {@link LoadOptions.tinyVae}"),
            ("linear", "By a map from latents to colours, fitted to the decoder: soft, and next to free"),
        ]).typescript("Exclude<PreviewMode, \"none\">");
    }
}

options! {
    /// Whose bound to compute and how.
    BoundOptions {
        /// The pictures. Alpha is dropped, and colours too where the model is grey.
        images: Vec<Rgba> = Vec::new() => {
            /// The picture. It is brought to the model's own size, or to `width` and `height`.
            image: picture().without_command();
            /// Several pictures, in place of `image`: each gets a bound.
            images: pictures().without_command();
        };
        /// What the network is told, one text for all pictures or one for each; models without a text encoder take the empty one only.
        prompt: Text = Text::default(), texts();
        /// What stands on the other side of guidance. Absent is not empty to SDXL, as in a run.
        negative_prompt: Option<Text> = None, texts();
        /// How strongly the prompt is followed: g in ε_u + g·(ε_c − ε_u). At 1 or below there is no guidance, and the bound is that of
        /// the model as it was trained.
        guidance_scale: f64 = 1.0, number();
        /// Which terms.
        timesteps: Timesteps = Timesteps::All => {
            /// The timesteps whose terms are computed; all of them if absent, which is the bound itself.
            timesteps: wholes();
            /// How many terms to compute in place of all: that of t = 0, and others the farther apart the larger t is, since terms fall
            /// about as 1/t. The bound is estimated from these.
            terms: count().conflicts(&["timesteps"]);
            /// Whether each of the `terms` is drawn from its part of the timesteps by the seed, in place of the part's middle: the
            /// estimate is then right on average over seeds.
            random: flag().requires(&["terms"]);
        };
        /// The variance σ_t² of the model's step; if absent the one that the checkpoint's scheduler names, or else that of
        /// `"fixed_small"`.
        variance: Option<Variance> = None, choice(&[
            ("fixed_small", "The variance of the true step, which knows the picture"),
            ("fixed_large", "β_t"),
            ("learned", "What the network says"),
            ("learned_range", "What the network says, between the other two"),
        ]);
        /// Whether x̂_0 is clamped to −1..1, where pixels lie, before the mean is formed. Latents lie anywhere and are never clamped.
        clip_denoised: bool = true, flag().without_command();
        /// Φ in L_0, where the data are pixels.
        cdf: Cdf = Cdf::Exact, choice(&[
            ("exact", "By the error function"),
            ("tanh", "By the hyperbolic tangent, as the code of most papers has it"),
        ]).without_package();
        /// Seed of the noise. That of the term at t is `torch.randn((pictures, channels, height, width), generator=manual_seed(seed + t))`.
        seed: u64 = 0, seed().command("`random` or -1 for any, which is then said");
        /// Whether latents are drawn from what the autoencoder makes of a picture, by the noise of `manual_seed(seed + T)`, rather than
        /// its mean.
        sample_posterior: bool = false, flag();
        /// Height in pixels that every picture is brought to; that of the model if absent.
        height: Option<usize> = None, count().value_name("PIXELS").package("A multiple of {@link ModelInfo.sizeMultiple}.");
        /// Width in pixels that every picture is brought to; that of the model if absent.
        width: Option<usize> = None, count().value_name("PIXELS").package("A multiple of {@link ModelInfo.sizeMultiple}.");
    }
}
