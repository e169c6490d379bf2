// Every option, described once. In a description other options of the same record stand in backquotes under their names here, and each
// face puts its own names in their place. What is written behind a default is what the option is to its faces: see `spec`.
//
// `records` makes structs and readers of this file, and `cargo xtask generate` what other languages need.

options! {
    /// Options of a run: what to draw and how. Sizes are `[height, width]`, corners `[top, left]`, in pixels.
    SampleOptions {
        /// Prompt: a text that says what to draw, or several, which are drawn at once. Models without a text encoder take the empty
        /// one only.
        prompt: Text = Text::default(), texts().package("Default `\"\"`.")
            .command("Required by models that take one. Given several times, each is drawn");
        /// SDXL: prompt for the second text encoder; the same as the first's if absent.
        prompt_2: Option<Text> = None, texts();
        /// Negative prompt: a text that says what to stay away from, or one for each prompt; without effect at a `guidance_scale` of 1
        /// or below. Absent is not empty to SDXL, which then takes an embedding of zeros.
        negative_prompt: Option<Text> = None, texts();
        /// SDXL: negative prompt for the second text encoder; the same as the first's if absent.
        negative_prompt_2: Option<Text> = None, texts();
        /// Number of pictures of each prompt, which are drawn all at once.
        num_images_per_prompt: usize = 1, count().never_recorded().limits(1.0, 64.0);
        /// Seed of the one random stream that all pictures of the run share. The same seed and options give the same pictures, the
        /// ones that diffusers draws with `torch.Generator("cpu").manual_seed(seed)`.
        seed: u64 = 0, seed().command("random or -1 for any: which one is said, and stands in the picture");
        /// A seed for each picture in place of one for all, as many as there are pictures. Each draws from a stream of its own, and is
        /// the picture that it would be alone.
        seeds: Vec<u64> = Vec::new(), seeds().never_recorded().conflicts(&["seed"]);
        /// Random stream of torch's that the seeds are for.
        generator: Stream = Stream::TorchCpu, choice(&[
            ("cpu", "`torch.Generator(\"cpu\")`"),
            ("cuda", "`torch.Generator(\"cuda\")`"),
        ]);
        /// Number of steps, diffusers' `num_inference_steps`. Where the scheduler's `steps_offset` has no room in so many, as with all T
        /// steps of DDPM, as much of it is left out as does not fit: diffusers cannot run these.
        steps: usize = 25, steps().of_schedule().always_recorded().limits(1.0, 1000.0)
            .package("From and to how many, {@link ModelInfo.solverSteps} says.");
        /// Timesteps to visit in place of `steps`, descending, for solvers that take them.
        timesteps: Option<Vec<f64>> = None, numbers().of_schedule().conflicts(&["steps"]);
        /// Noise levels σ to visit in place of `steps`, descending, for solvers that take them; Euler's with the one where it arrives.
        sigmas: Option<Vec<f64>> = None, numbers().of_schedule().conflicts(&["steps", "timesteps"]);
        /// LCM: steps of the schedule that the model was distilled from; what its scheduler says if absent. TCD: the most steps of a
        /// run that may visit any timestep.
        original_inference_steps: Option<usize> = None, count().of_schedule();
        /// Guidance scale, how strongly the prompt is followed: g in ε_u + g·(ε_c − ε_u). At 1 or below there is no guidance, and a step takes half the
        /// time.
        guidance_scale: f64 = 7.5, number().always_recorded().limits(0.0, 100.0);
        /// Share, from 0 to 1, by which the guided prediction is brought back to the spread of the one that the prompt gives. Lin et al.
        /// 2023, arXiv 2305.08891.
        guidance_rescale: f64 = 0.0, number().limits(0.0, 1.0);
        /// Solver of the run.
        scheduler: Scheduler = Scheduler::Checkpoint => {
            /// Solver that walks from noise to picture, with the checkpoint's settings; the one that the checkpoint was saved with if
            /// absent. A name such as "DPM++ 2M SDE Karras" says settings, too.
            solver: solver().of_schedule().conflicts(&["scheduler"]).package("{@link ModelInfo.solvers} lists plain names.");
            /// Scheduler as a `scheduler_config.json` has it, used as it is in place of the checkpoint's own: `_class_name` names the solver.
            scheduler: config().of_schedule().package("Not together with `solver`.").command("A folder with one will do");
        };
        /// Settings of the solver in place of the scheduler's own.
        solver_keys: SolverKeys = SolverKeys::default() => {
            /// Karras' spacing: true if σ is spaced evenly in σ^(1/7), false if not, whatever the checkpoint says. Its scheduler's config decides
            /// if absent.
            use_karras_sigmas: setting().of_schedule();
            /// Exponential spacing: true if σ is spaced evenly in log σ, false if not, whatever the checkpoint says. Its scheduler's config
            /// decides if absent.
            use_exponential_sigmas: setting().of_schedule();
            /// Beta spacing: true if σ is spaced by quantiles of a Beta distribution, false if not, whatever the checkpoint says. Its
            /// scheduler's config decides if absent.
            use_beta_sigmas: setting().of_schedule();
            /// Equation that dpmpp_2m and dpmpp_2s solve: dpmsolver++, sde-dpmsolver++, dpmsolver or sde-dpmsolver.
            algorithm_type: name(&["dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"]).of_schedule();
            /// Number of predictions that a step of dpmpp_2m, dpmpp_2s, unipc or deis takes into account.
            solver_order: count().of_schedule().limits(1.0, 4.0).placeholder("2");
        };
        /// DDIM's and TCD's η: the share of DDPM's noise that each step adds, from 0 (deterministic) to 1 (ancestral). Other solvers pay
        /// no heed to it.
        eta: f64 = 0.0, number().of_schedule().limits(0.0, 1.0);
        /// DDIM: true if ε is computed anew from the clipped x̂_0.
        use_clipped_model_output: bool = false, flag().of_schedule();
        /// Width in pixels; if absent that of `image` where there is one and no `mask`, or else the model's own.
        width: Option<usize> = None, count().value_name("PIXELS").limits(1.0, 8192.0)
            .package("A multiple of {@link ModelInfo.sizeMultiple}.");
        /// Height in pixels; if absent that of `image` where there is one and no `mask`, or else the model's own.
        height: Option<usize> = None, count().value_name("PIXELS").limits(1.0, 8192.0)
            .package("A multiple of {@link ModelInfo.sizeMultiple}.");
        /// Picture to begin with, to fill or to enlarge.
        image: Option<Rgba> = None, picture().package("See {@link ModelInfo.takesImage}.").command("A PNG");
        /// Mask of `image`: white is drawn anew, black stays. As large as `image`, or brought to its size.
        mask: Option<Rgba> = None, picture().requires(&["image"]).command("A PNG");
        /// Share of the schedule to walk, from a little above 0 to 1, which forgets `image`. If absent 0.8, or 1 if there is a `mask`;
        /// for SDXL 0.3, or 0.9999 if there is one.
        strength: Option<f64> = None, number().requires(&["image"]).limits(0.0, 1.0).placeholder("0.8, masked 1");
        /// Timestep of training to begin at in place of `strength`, whether or not a run would visit it: x_t of `image` there,
        /// √ᾱ_t·x_0 + √(1−ᾱ_t)·ε in the scale of the solver, and then the timesteps below it that a run would visit. Draws are those of
        /// `strength`, and where that begins at the same timestep the run is the same. Models without an autoencoder take a picture for
        /// this alone.
        start_timestep: Option<usize> = None, whole().requires(&["image"]).conflicts(&["strength"])
            .package("The run begins at the x_t that {@link ForwardProcess.at} shows of `image` and `seed`.")
            .command("From 0 to 999 in most models");
        /// Upscaler: level of the noise that is added to `image` before it is enlarged; 20 if absent.
        noise_level: Option<usize> = None, whole().limits(0.0, 1000.0).placeholder("20");
        /// Number of the text encoder's last layers to leave out; as the model was trained if absent.
        clip_skip: Option<usize> = None, whole().limits(0.0, 100.0).placeholder("0");
        /// Treatment of a prompt that is longer than the text encoder.
        long_prompts: LongPrompts = LongPrompts::Cut, choice(&[
            ("cut", "The rest is dropped, and named in a warning"),
            ("chunks", "The prompt is encoded in several parts"),
        ]).package("{@link Run.warning} is that warning.");
        /// SDXL: size that the picture is said to have had before it was scaled; the run's if absent.
        original_size: Option<[usize; 2]> = None, pair(["height", "width"]);
        /// SDXL: distance from the top and the left at which the picture is said to have been cropped.
        crops_coords_top_left: [usize; 2] = [0, 0], pair(["top", "left"]);
        /// SDXL: size that the picture is said to have been made for; the run's if absent.
        target_size: Option<[usize; 2]> = None, pair(["height", "width"]);
        /// SDXL: `original_size` for the negative prompt; a run from noise takes it together with `negative_target_size` only.
        negative_original_size: Option<[usize; 2]> = None, pair(["height", "width"]);
        /// SDXL: `crops_coords_top_left` for the negative prompt, where both its sizes are given. A run that begins with a picture has
        /// one crop for both prompts, as in diffusers.
        negative_crops_coords_top_left: [usize; 2] = [0, 0], pair(["top", "left"]);
        /// SDXL: `target_size` for the negative prompt; a run from noise takes it together with `negative_original_size` only.
        negative_target_size: Option<[usize; 2]> = None, pair(["height", "width"]);
        /// Pictures of a step that are shown; those of the last are always decoded.
        preview: Preview = Preview::Auto, choice(&[
            ("auto", "`\"tiny\"` where there is a tiny autoencoder, or else `\"linear\"`"),
            ("decode", "By the model's own decoder, which may take longer than the step"),
            ("tiny", "By {@link LoadOptions.tinyVae}"),
            ("linear", "By a map from latents to colours, fitted to the decoder: soft, and next to free"),
            ("none", "No pictures before the last"),
        ]).typescript("PreviewMode").without_command();
        /// True if pictures pass through the autoencoder in tiles even where the whole would fit the device, which takes less memory and
        /// gives a slightly different picture.
        vae_tiling: bool = false, flag();
    }
}

options! {
    /// Options of a forward process: of which picture, and how it is shown.
    ForwardOptions {
        /// The picture x_0, before it is encoded. Alpha is dropped, and colours too where the model is grey.
        image: Rgba = Rgba::default(), picture().required();
        /// Space in which noise is added.
        space: Space = Space::Latents, choice(&[
            ("latents", "The space that the model works in: latents where it has an autoencoder, else pixels"),
            ("pixels", "The pixels of the picture, whatever the model works on"),
        ]);
        /// Seed of ε, which is the same for every t, and before it of the draw from what the autoencoder makes of the picture: those of
        /// a run.
        seed: u64 = 0, seed();
        /// Random stream of torch's that the seed is for.
        generator: Stream = Stream::TorchCpu, choice(&[
            ("cpu", "`torch.Generator(\"cpu\")`"),
            ("cuda", "`torch.Generator(\"cuda\")`"),
        ]);
        /// Scheduler whose scale and timesteps x_t has; the noise schedule is the checkpoint's but for a config of its own.
        scheduler: Scheduler = Scheduler::Checkpoint => {
            /// Solver whose scale x_t has, as of a run: some hold x_0 + σ·ε. The checkpoint's own if absent.
            solver: solver();
            /// Scheduler as a `scheduler_config.json` has it, in place of the checkpoint's own.
            scheduler: config();
        };
        /// Prompt that the network is told; models without a text encoder take the empty one only.
        prompt: Text = Text::default(), text().package("Default `\"\"`.");
        /// Negative prompt, the other side of guidance. Absent is not empty to SDXL, as in a run.
        negative_prompt: Option<Text> = None, text();
        /// Guidance scale: g in ε_u + g·(ε_c − ε_u). At 1 or below the network is shown as it was trained.
        guidance_scale: f64 = 1.0, number();
        /// Width in pixels. If absent that of the picture, and for a model that works on pixels its own: as in a run from a picture.
        width: Option<usize> = None, count().package("That of the picture is rounded down to a multiple of {@link ModelInfo.sizeMultiple}.");
        /// Height in pixels. If absent that of the picture, and for a model that works on pixels its own: as in a run from a picture.
        height: Option<usize> = None, count().package("That of the picture is rounded down to a multiple of {@link ModelInfo.sizeMultiple}.");
        /// Way by which latents become pictures; there always is a picture.
        preview: Preview = Preview::Auto, choice(&[
            ("auto", "`\"tiny\"` where there is a tiny autoencoder, or else `\"linear\"`"),
            ("decode", "By the model's own decoder"),
            ("tiny", "By {@link LoadOptions.tinyVae}"),
            ("linear", "By a map from latents to colours, fitted to the decoder: soft, and next to free"),
        ]).typescript("Exclude<PreviewMode, \"none\">");
    }
}

options! {
    /// Options of a bound: of which pictures, and how it is computed.
    BoundOptions {
        /// The pictures. Alpha is dropped, and colours too where the model is grey.
        images: Vec<Rgba> = Vec::new() => {
            /// Picture, which is brought to the model's own size, or to `width` and `height`.
            image: picture().without_command();
            /// Several pictures, in place of `image`: each gets a bound.
            images: pictures().without_command();
        };
        /// Prompt that the network is told, one for all pictures or one for each; models without a text encoder take the empty one only.
        prompt: Text = Text::default(), texts().package("Default `\"\"`.");
        /// Negative prompt, the other side of guidance; used at a `guidance_scale` above 1. Absent is not empty to SDXL, as in a run.
        negative_prompt: Option<Text> = None, texts();
        /// Guidance scale: g in ε_u + g·(ε_c − ε_u). At 1 or below there is no guidance, and the bound is that of
        /// the model as it was trained.
        guidance_scale: f64 = 1.0, number();
        /// Terms that are computed.
        timesteps: Timesteps = Timesteps::All => {
            /// Timesteps whose terms are computed; all of them if absent, which is the bound itself. Without 0 it is not estimated.
            timesteps: wholes().value_name("LIST");
            /// Number of terms to compute in place of all: that of t = 0, and others the farther apart the larger t is, since terms fall
            /// about as 1/t. The bound is estimated from these, with a standard error that is rather too large than too small.
            terms: count().conflicts(&["timesteps"]);
            /// True if each of the `terms` is drawn from its part of the timesteps by the seed, in place of the part's middle: the
            /// estimate is then right on average over seeds.
            random: flag().requires(&["terms"]);
        };
        /// Variance σ_t² of the model's step; if absent the one that the checkpoint's scheduler names, or else that of
        /// `"fixed_small"`.
        variance: Option<Variance> = None, choice(&[
            ("fixed_small", "The variance of the true step, which knows the picture"),
            ("fixed_large", "β_t"),
            ("learned", "The network's own"),
            ("learned_range", "The network's, between the first two"),
        ]).value_name("NAME");
        /// True if x̂_0 is clamped to −1..1, where pixels lie, before the mean is formed. Latents lie anywhere and are never clamped.
        clip_denoised: bool = true, flag().without_command();
        /// Normal distribution Φ in L_0, where the data are pixels.
        cdf: Cdf = Cdf::Exact, choice(&[
            ("exact", "By the error function"),
            ("tanh", "By the hyperbolic tangent, as the code of most papers has it"),
        ]).without_package();
        /// Seed of the noise. That of the term at t is `torch.randn((pictures, channels, height, width), generator=manual_seed(seed + t))`.
        seed: u64 = 0, seed().command("random or -1 for any, which is then said");
        /// True if latents are drawn from the distribution that the autoencoder makes of a picture, by the noise of `manual_seed(seed + T)`, rather than
        /// its mean.
        sample_posterior: bool = false, flag();
        /// Width in pixels that every picture is brought to; that of the model if absent.
        width: Option<usize> = None, count().value_name("PIXELS").package("A multiple of {@link ModelInfo.sizeMultiple}.");
        /// Height in pixels that every picture is brought to; that of the model if absent.
        height: Option<usize> = None, count().value_name("PIXELS").package("A multiple of {@link ModelInfo.sizeMultiple}.");
    }
}
